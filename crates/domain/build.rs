//! The migrations are compiled in: a new one must be noticed.

fn main() {
    #[expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
    println!("cargo:rerun-if-changed=../../migrations");
}
