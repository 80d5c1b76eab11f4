#![doc = "loadtest"] fn main() {}
