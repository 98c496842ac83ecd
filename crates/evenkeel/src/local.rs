//! Values that belong to one loop, found by their type.
//!
//! State that stays on its loop is not [`Send`], so a message from another loop cannot carry it, only ask for it over there.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::handle::Handle;

/// What a loop keeps for its users, by type.
#[derive(Default)]
pub(crate) struct Locals(RefCell<HashMap<TypeId, Rc<dyn Any>>>);

impl Locals {
    /// Takes everything out; dropped by the caller when nothing is borrowed.
    pub(crate) fn take(&self) -> impl Sized + use<> {
        std::mem::take(&mut *self.0.borrow_mut())
    }
}

/// # State of a loop
///
/// What handlers, tasks and messages from other loops share on one loop is kept by the loop itself: one value of each type.
///
/// ```
/// use evenkeel::group::Group;
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// struct Served(Cell<u64>);
///
/// # fn main() -> std::io::Result<()> {
/// let group = Group::builder().loops(2).build(|handle, _index| {
///     handle.set_local(Rc::new(Served(Cell::new(0))));
///     Ok(())
/// })?;
/// let answer = group.spawn_on(1, || async {
///     let served = evenkeel::Handle::current().local::<Served>().expect("set on every loop");
///     served.0.set(served.0.get() + 1);
///     served.0.get()
/// })?;
/// assert!(matches!(answer.wait(), Ok(1)));
/// # Ok(())
/// # }
/// ```
impl Handle {
    /// Keeps a value for [`local`](Self::local), in place of the one of its type that was there, which is returned. It is
    /// dropped when the loop ends, after all connections and tasks. After the loop's end it is dropped at once.
    pub fn set_local<T: 'static>(&self, value: Rc<T>) -> Option<Rc<T>> {
        if self.shared.ended.get() {
            return None;
        }
        let before = self.shared.locals.0.borrow_mut().insert(TypeId::of::<T>(), value);
        before.and_then(|before| before.downcast().ok())
    }

    /// The loop's value of this type, if it has one.
    pub fn local<T: 'static>(&self) -> Option<Rc<T>> {
        let value = self.shared.locals.0.borrow().get(&TypeId::of::<T>()).cloned();
        value.and_then(|value| value.downcast().ok())
    }

    /// Takes the loop's value of this type back, if it has one.
    pub fn take_local<T: 'static>(&self) -> Option<Rc<T>> {
        let value = self.shared.locals.0.borrow_mut().remove(&TypeId::of::<T>());
        value.and_then(|value| value.downcast().ok())
    }
}
