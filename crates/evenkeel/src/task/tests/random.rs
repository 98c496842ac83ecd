//! Random programs: any call from any poll, destructor or place outside, and everything still ends exactly
//! once.

use std::panic::resume_unwind;

use super::*;

/// xorshift64: the same on every run.
struct Rng(Cell<u64>);

impl Rng {
    fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 11) % n
    }
}

struct World {
    executor: Executor,
    rng: Rng,
    handles: RefCell<Vec<JoinHandle<Output>>>,
    wakers: RefCell<Vec<Waker>>,
    /// How many more actions destructors may take.
    fuel: Cell<u32>,
    spawned: Cell<usize>,
    dropped: Cell<usize>,
    outputs: Cell<isize>,
    joined: Cell<usize>,
}

/// An output that is alive once.
struct Output(Rc<World>);

impl Output {
    fn new(world: &Rc<World>) -> Output {
        world.outputs.set(world.outputs.get() + 1);
        Output(Rc::clone(world))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.outputs.set(self.0.outputs.get() - 1);
        self.0.act_in_drop();
    }
}

struct Actor {
    world: Rc<World>,
    running: bool,
    /// A task that this one joins.
    child: Option<JoinHandle<Output>>,
}

impl Future for Actor {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output> {
        assert!(!std::mem::replace(&mut self.running, true), "polled within its own poll");
        let world = Rc::clone(&self.world);
        if let Some(child) = &mut self.child
            && let Poll::Ready(result) = Pin::new(child).poll(cx)
        {
            self.child = None;
            drop(result);
        }
        let actions = world.rng.below(4);
        for _ in 0..actions {
            match world.rng.below(12) {
                0 => cx.waker().wake_by_ref(),
                1..=3 => world.keep_waker(cx.waker().clone()),
                4 => self.child = world.take_handle(),
                _ => world.act(),
            }
        }
        self.running = false;
        match world.rng.below(24) {
            0..=3 => Poll::Ready(Output::new(&world)),
            // Without the hook, whose report of each would be long.
            4 => resume_unwind(Box::new("a task panics")),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.world.dropped.set(self.world.dropped.get() + 1);
        self.world.act_in_drop();
    }
}

impl World {
    fn keep_waker(&self, waker: Waker) {
        self.wakers.borrow_mut().push(waker);
    }

    fn take_handle(&self) -> Option<JoinHandle<Output>> {
        let mut handles = self.handles.borrow_mut();
        if handles.is_empty() {
            return None;
        }
        let at = self.rng.below(handles.len() as u64) as usize;
        Some(handles.swap_remove(at))
    }

    fn spawn(self: &Rc<Self>) {
        self.spawned.set(self.spawned.get() + 1);
        let handle = self.executor.spawn(Actor { world: Rc::clone(self), running: false, child: None });
        self.handles.borrow_mut().push(handle);
    }

    /// One random call. No borrow is held where a destructor of the tasks may run.
    fn act(self: &Rc<Self>) {
        match self.rng.below(12) {
            0..=1 if self.executor.len() < 40 => self.spawn(),
            2..=4 => {
                let wakers = self.wakers.borrow();
                if !wakers.is_empty() {
                    wakers[self.rng.below(wakers.len() as u64) as usize].wake_by_ref();
                }
            }
            5 => {
                let waker = self.wakers.borrow_mut().pop();
                drop(waker);
            }
            6 => {
                let waker = self.wakers.borrow_mut().pop();
                if let Some(waker) = waker {
                    thread::spawn(move || waker.wake()).join().unwrap();
                }
            }
            7 => {
                if let Some(handle) = self.take_handle() {
                    handle.abort();
                    self.handles.borrow_mut().push(handle);
                }
            }
            8 => drop(self.take_handle()),
            9 => self.executor.drain_remote(),
            _ => {
                if let Some(mut handle) = self.take_handle() {
                    match poll(&mut handle) {
                        Poll::Ready(result) => {
                            self.joined.set(self.joined.get() + 1);
                            drop(result);
                        }
                        Poll::Pending => self.handles.borrow_mut().push(handle),
                    }
                }
            }
        }
    }

    fn act_in_drop(self: &Rc<Self>) {
        if let Some(fuel) = self.fuel.get().checked_sub(1) {
            self.fuel.set(fuel);
            self.act();
        }
    }
}

#[test]
fn i7_i37_i38_random_programs_end_every_task_once() {
    let (runs, steps) = if cfg!(miri) { (2, 100) } else { (60, 1_000) };
    let mut joined = 0;
    for seed in 1..=runs {
        let world = Rc::new(World {
            executor: Executor::new(Arc::new(|| {})),
            rng: Rng(Cell::new(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed) | 1)),
            handles: RefCell::default(),
            wakers: RefCell::default(),
            fuel: Cell::new(0),
            spawned: Cell::new(0),
            dropped: Cell::new(0),
            outputs: Cell::new(0),
            joined: Cell::new(0),
        });
        for _ in 0..steps {
            world.fuel.set(5);
            if world.rng.below(3) == 0 {
                world.executor.run(world.rng.below(6) as usize);
            } else {
                world.act();
            }
        }
        let live = world.executor.len();
        assert_eq!(world.spawned.get() - world.dropped.get(), live, "seed {seed}");
        world.fuel.set(20);
        world.executor.cancel_all();
        assert_eq!(world.executor.len(), 0, "seed {seed}");
        assert_eq!(world.spawned.get(), world.dropped.get(), "seed {seed}");
        world.fuel.set(0);
        for mut handle in world.handles.take() {
            assert!(poll(&mut handle).is_ready(), "seed {seed}");
        }
        assert_eq!(world.outputs.get(), 0, "seed {seed}");
        for waker in world.wakers.take() {
            waker.wake();
        }
        joined += world.joined.get();
        assert_eq!(Rc::strong_count(&world), 1, "seed {seed}");
    }
    assert!(cfg!(miri) || joined > 500, "the run was too quiet to prove anything: {joined}");
    assert_freed(TypeId::of::<Actor>());
}
