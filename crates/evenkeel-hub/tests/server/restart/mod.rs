//! The running program is replaced by a new process, with clients of every kind connected: nobody is refused, cut off or
//! passed over, and whatever goes wrong, somebody serves.

mod changes;
mod clients;
mod failures;
mod manager;
mod overlap;
mod site;
mod storm;
mod tally;
