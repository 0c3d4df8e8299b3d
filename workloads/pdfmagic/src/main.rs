#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pdfmagic::command::main()
}
