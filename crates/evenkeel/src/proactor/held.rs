//! Bytes that were received for a task and wait to be read: for each stream a list of spans, all in one slab.

use crate::sys::buffers::Span;

/// A list's name is the index of its last node; 0 is the empty list.
#[derive(Default)]
pub(super) struct Held {
    nodes: Vec<Node>,
    free: u32,
    live: usize,
    /// Places of sources whose list was begun since this was last taken.
    pub(super) begun: Vec<u32>,
}

struct Node {
    span: Option<Span>,
    /// The next in the list, which is a circle; of a free node, the next free one.
    next: u32,
}

impl Held {
    /// Whether no list has anything.
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn node(&mut self, span: Span) -> u32 {
        self.live += 1;
        if self.nodes.is_empty() {
            // The name of no list.
            self.nodes.push(Node { span: None, next: 0 });
        }
        let index = self.free;
        if index == 0 {
            self.nodes.push(Node { span: Some(span), next: 0 });
            return (self.nodes.len() - 1) as u32;
        }
        let node = &mut self.nodes[index as usize];
        self.free = std::mem::take(&mut node.next);
        node.span = Some(span);
        index
    }

    /// Puts a span behind all others of a list.
    pub(super) fn push(&mut self, list: &mut u32, span: Span) {
        self.push_first(list, span);
        // What is in front of the last one is behind it.
        *list = self.nodes[*list as usize].next;
    }

    /// Puts a span before all others of a list.
    pub(super) fn push_first(&mut self, list: &mut u32, span: Span) {
        let new = self.node(span);
        if *list == 0 {
            *list = new;
            self.nodes[new as usize].next = new;
        } else {
            let last = *list as usize;
            self.nodes[new as usize].next = self.nodes[last].next;
            self.nodes[last].next = new;
        }
    }

    /// Takes the first span of a list.
    pub(super) fn pop(&mut self, list: &mut u32) -> Option<Span> {
        if *list == 0 {
            return None;
        }
        let first = self.nodes[*list as usize].next;
        let next = self.nodes[first as usize].next;
        if first == *list {
            *list = 0;
        } else {
            self.nodes[*list as usize].next = next;
        }
        let node = &mut self.nodes[first as usize];
        node.next = std::mem::replace(&mut self.free, first);
        self.live -= 1;
        node.span.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::Held;
    use crate::sys::buffers::Span;

    /// Lists that share a slab keep their spans apart, and in order.
    #[test]
    fn i15_lists_agree_with_queues() {
        let mut rng = fastrand::Rng::with_seed(15);
        let mut held = Held::default();
        let mut lists = [0; 5];
        let mut queues: [VecDeque<u32>; 5] = Default::default();
        for name in 0..20_000 {
            let at = rng.usize(..5);
            let (list, queue) = (&mut lists[at], &mut queues[at]);
            match rng.u8(..4) {
                0 => {
                    held.push(list, Span::named(name));
                    queue.push_back(name);
                }
                1 if rng.bool() => {
                    held.push_first(list, Span::named(name));
                    queue.push_front(name);
                }
                _ => assert_eq!(held.pop(list).map(|span| span.name()), queue.pop_front()),
            }
            assert_eq!(*list == 0, queue.is_empty());
            assert_eq!(held.is_empty(), queues.iter().all(VecDeque::is_empty));
        }
        assert!(held.nodes.len() < 1000, "nodes are used again");
    }
}
