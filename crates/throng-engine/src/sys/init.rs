//! A first process for replicas whose program is not one: it hands signals on, waits for whatever children are left to
//! it, and ends as the program does.
//!
//! It has to run in any image, so it is a program of its own without a library: a few hundred bytes of machine code
//! under a header that is made here, in a file in memory. A copy of the supervisor could not take its place: whoever is
//! root in the replica could read the supervisor's memory in it.
//!
//! Its arguments are the paths to try, an empty one, and the program's own arguments. Every signal is blocked before it
//! has a child, so that none is lost, and taken by `rt_sigtimedwait`. It ends with the program's code, 128 and the
//! number for a signal, or 127 if no path can be executed.

use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.throng_init, \"a\"",
    "throng_init_begin:",
    "mov rbx, [rsp]",             // the number of arguments
    "lea r12, [rsp + 8]",         // the paths
    "lea r13, [r12 + rbx*8 + 8]", // the environment
    "mov r15, r12",
    "2:",
    "mov rax, [r15]",
    "add r15, 8",
    "cmp byte ptr [rax], 0",
    "jne 2b", // behind the empty one: the program's arguments
    "sub rsp, 256",
    "mov qword ptr [rsp + 128], -1",
    "mov eax, 14", // rt_sigprocmask(SIG_SETMASK, all)
    "mov edi, 2",
    "lea rsi, [rsp + 128]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "mov eax, 57", // fork
    "syscall",
    "test eax, eax",
    "js 9f",
    "jz 6f",
    "mov r14, rax",
    "3:",
    "mov eax, 128", // rt_sigtimedwait(all)
    "lea rdi, [rsp + 128]",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "cmp eax, 17", // SIGCHLD
    "je 4f",
    "test eax, eax",
    "jle 3b",
    "mov esi, eax",
    "mov eax, 62", // kill
    "mov rdi, r14",
    "syscall",
    "jmp 3b",
    "4:",
    "mov eax, 61", // wait4(-1, WNOHANG)
    "mov rdi, -1",
    "lea rsi, [rsp + 136]",
    "mov edx, 1",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "jle 3b",
    "cmp eax, r14d",
    "jne 4b",
    "mov edi, [rsp + 136]",
    "mov eax, edi",
    "and eax, 127",
    "jz 5f",
    "lea edi, [rax + 128]",
    "jmp 8f",
    "5:",
    "shr edi, 8",
    "and edi, 255",
    "8:",
    "mov eax, 231", // exit_group
    "syscall",
    "6:",
    "mov qword ptr [rsp + 128], 0",
    "mov eax, 14", // rt_sigprocmask(SIG_SETMASK, none)
    "mov edi, 2",
    "lea rsi, [rsp + 128]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "7:",
    "mov rdi, [r12]",
    "cmp byte ptr [rdi], 0",
    "je 9f",
    "add r12, 8",
    "mov rsi, r15",
    "mov rdx, r13",
    "mov eax, 59", // execve
    "syscall",
    "jmp 7b",
    "9:",
    "mov edi, 127",
    "jmp 8b",
    "throng_init_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.throng_init, \"a\"",
    ".balign 4",
    "throng_init_begin:",
    "ldr x19, [sp]",   // the number of arguments
    "add x20, sp, #8", // the paths
    "add x21, x20, x19, lsl #3",
    "add x21, x21, #8", // the environment
    "mov x22, x20",
    "2:",
    "ldr x0, [x22], #8",
    "ldrb w1, [x0]",
    "cbnz w1, 2b", // behind the empty one: the program's arguments
    "sub sp, sp, #256",
    "mov x0, #-1",
    "str x0, [sp, #128]",
    "mov x8, #135", // rt_sigprocmask(SIG_SETMASK, all)
    "mov x0, #2",
    "add x1, sp, #128",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "mov x8, #220", // clone(SIGCHLD)
    "mov x0, #17",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "svc #0",
    "cmp x0, #0",
    "b.lt 9f",
    "b.eq 6f",
    "mov x23, x0",
    "3:",
    "mov x8, #137", // rt_sigtimedwait(all)
    "add x0, sp, #128",
    "mov x1, sp",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "cmp x0, #17", // SIGCHLD
    "b.eq 4f",
    "cmp x0, #0",
    "b.le 3b",
    "mov x1, x0",
    "mov x0, x23",
    "mov x8, #129", // kill
    "svc #0",
    "b 3b",
    "4:",
    "mov x8, #260", // wait4(-1, WNOHANG)
    "mov x0, #-1",
    "add x1, sp, #136",
    "mov x2, #1",
    "mov x3, #0",
    "svc #0",
    "cmp x0, #0",
    "b.le 3b",
    "cmp x0, x23",
    "b.ne 4b",
    "ldr w0, [sp, #136]",
    "and w1, w0, #127",
    "cbz w1, 5f",
    "add w0, w1, #128",
    "b 8f",
    "5:",
    "ubfx w0, w0, #8, #8",
    "8:",
    "mov x8, #94", // exit_group
    "svc #0",
    "6:",
    "str xzr, [sp, #128]",
    "mov x8, #135", // rt_sigprocmask(SIG_SETMASK, none)
    "mov x0, #2",
    "add x1, sp, #128",
    "mov x2, #0",
    "mov x3, #8",
    "svc #0",
    "7:",
    "ldr x0, [x20], #8",
    "ldrb w1, [x0]",
    "cbz w1, 9f",
    "mov x1, x22",
    "mov x2, x21",
    "mov x8, #221", // execve
    "svc #0",
    "b 7b",
    "9:",
    "mov x0, #127",
    "b 8b",
    "throng_init_end:",
    ".popsection",
);

unsafe extern "C" {
    static throng_init_begin: u8;
    static throng_init_end: u8;
}

/// The machine code above.
fn code() -> &'static [u8] {
    let (begin, end) = (&raw const throng_init_begin, &raw const throng_init_end);
    // SAFETY: the labels are the two ends of one run of constant bytes, which the assembler has laid out.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

/// Sizes of the header of an ELF file and of an entry of its table of segments (elf(5)).
const HEADER: usize = 64;
const SEGMENT: usize = 56;
/// Where the file is loaded; the lowest address that every kernel allows is far below.
const BASE: u64 = 0x40_0000;
/// `e_machine`.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// An executable with one segment that is the whole file, and a stack that holds no code.
fn image() -> Vec<u8> {
    let code = code();
    let start = HEADER + 2 * SEGMENT;
    let size = (start + code.len()) as u64;
    let mut image = Vec::with_capacity(start + code.len());
    // 64 bits, the host's byte order, version 1.
    let order = if cfg!(target_endian = "big") { 2 } else { 1 };
    image.extend([0x7f, b'E', b'L', b'F', 2, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2, MACHINE] {
        image.extend(half.to_ne_bytes());
    }
    image.extend(1u32.to_ne_bytes());
    for word in [BASE + start as u64, HEADER as u64, 0] {
        image.extend(word.to_ne_bytes());
    }
    image.extend(0u32.to_ne_bytes());
    for half in [HEADER as u16, SEGMENT as u16, 2, 0, 0, 0] {
        image.extend(half.to_ne_bytes());
    }
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    for (kind, flags, address, length, align) in
        [(LOAD, READ_EXECUTE, BASE, size, 0x1_0000), (GNU_STACK, READ_WRITE, 0, 0, 16)]
    {
        image.extend(kind.to_ne_bytes());
        image.extend(flags.to_ne_bytes());
        for word in [0, address, address, length, length, align] {
            image.extend(u64::to_ne_bytes(word));
        }
    }
    image.extend(code);
    image
}

/// The program in a file that nobody can change any more.
pub fn file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A kernel that knows the flag may be set to allow no programs without it; an older one refuses it.
    let made = rustix::fs::memfd_create(c"init", flags | MemfdFlags::EXEC);
    let file = made.or_else(|_| rustix::fs::memfd_create(c"init", flags))?;
    let mut file = File::from(file);
    file.write_all(&image())?;
    let file = OwnedFd::from(file);
    use rustix::fs::SealFlags;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus, Stdio};

    fn run(arguments: &[&str]) -> ExitStatus {
        let file = file().unwrap();
        let program = format!("/proc/self/fd/{}", file.as_raw_fd());
        // The first path is the name that it is called by.
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command.arg0(arguments[0]).args(&arguments[1..]).stdin(Stdio::null()).status().unwrap()
    }

    #[test]
    fn it_ends_as_the_program_does() {
        for (arguments, code) in [
            (&["/bin/sh", "", "sh", "-c", "exit 7"][..], 7),
            (&["/bin/sh", "", "sh", "-c", "kill -9 $$"], 137),
            (&["/nothing", "/no/thing", "/bin/true", "", "true"], 0),
            (&["/nothing", "", "nothing"], 127),
            // What is left behind ends before or after; neither is waited for longer than the program.
            (&["/bin/sh", "", "sh", "-c", "sleep 30 & (sleep 0 &) ; exit 3"], 3),
        ] {
            let status = run(arguments);
            assert_eq!((status.code(), status.signal()), (Some(code), None), "{arguments:?}");
        }
    }

    #[test]
    fn it_is_small_and_cannot_be_changed() {
        assert!(image().len() < 1024, "{} bytes", image().len());
        let mut file = File::from(file().unwrap());
        assert!(file.write_all(b"x").is_err());
    }
}
