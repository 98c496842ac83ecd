//! Makes a program that shows a difference short.

use super::program::Op;

/// Leaves out what is not needed for `differs` to be true, which it is of the whole program. `differs` is asked at most `most` times.
pub(super) fn shrink(program: Vec<Op>, most: usize, mut differs: impl FnMut(&[Op]) -> bool) -> Vec<Op> {
    let mut program = program;
    let mut asked = 0;
    let mut piece = program.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < program.len() {
            if asked == most {
                return program;
            }
            asked += 1;
            let mut rest = program.clone();
            rest.drain(from..(from + piece).min(program.len()));
            if differs(&rest) {
                program = rest;
                shorter = true;
            } else {
                from += piece;
            }
        }
        if !shorter || piece > 1 {
            piece /= 2;
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let program: Vec<Op> = (0..50).map(|n| Op::Spare { into: n }).collect();
        let needed = [Op::Spare { into: 7 }, Op::Spare { into: 31 }];
        let short = shrink(program, 1000, |rest| needed.iter().all(|op| rest.contains(op)));
        assert_eq!(short, needed);
    }
}
