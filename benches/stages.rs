//! Each stage on its own.

fn main() {
    divan::main();
}
