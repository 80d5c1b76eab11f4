//! The simulator from outside, over a socket.

mod client;
mod faults;
mod shapes;
mod truth;
