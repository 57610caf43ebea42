//! What is said to a program, by whoever asks capture for its stdin.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;

use common::printer::kill;
use common::{Scene, eventually, is_alive, read_replies};
use podlog_container::control::{self, Program, Reply, Request};

/// Tells what it reads, and when there is nothing more to read.
const LISTENER: &str = "while read -r line; do echo \"heard $line\"; done; echo over";

fn listener(stdin_once: bool) -> Scene {
    let scene = Scene::script(LISTENER).with(|process| {
        process.stdin = true;
        process.stdin_once = stdin_once;
    });
    scene.start();
    scene
}

/// Asks for stdin: the connection, and what to write into.
fn stdin(scene: &Scene) -> Option<(UnixStream, Option<File>)> {
    let mut socket = scene.dir.connect_control().ok()?;
    socket.write_all(b"stdin\n").ok()?;
    let (mut answer, mut descriptors) = ([0; 64], Vec::new());
    let length = control::receive(&socket, &mut answer, &mut descriptors).ok()?;
    assert_eq!(Reply::parse(str::from_utf8(&answer[..length]).expect("text").trim_end()), Some(done()));
    assert!(descriptors.len() <= 1);
    Some((socket, descriptors.pop().map(File::from)))
}

fn done() -> Reply {
    Reply::Ok(String::new())
}

/// Says a line, once the program's stdin can be had.
fn say(scene: &Scene, line: &str) -> (UnixStream, File) {
    let (socket, inlet) = eventually("stdin", || stdin(scene));
    let mut inlet = inlet.expect("a descriptor");
    writeln!(inlet, "{line}").expect("write");
    scene.wait_for(&format!("heard {line}"));
    (socket, inlet)
}

#[test]
fn a_program_hears_everybody_and_never_an_end() {
    let scene = listener(false);
    drop(say(&scene, "one"));
    let second = say(&scene, "two");
    drop(say(&scene, "three"));
    drop(second);
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
    assert_eq!(scene.stdout(), "heard one\nheard two\nheard three\n");
}

#[test]
fn stdin_for_once_ends_with_the_first_who_goes() {
    let scene = listener(true);
    // Who asks for something else may come and go.
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
    let (first, second) = (say(&scene, "one"), say(&scene, "two"));
    drop(first);
    eventually("the end for everybody", || stdin(&scene)?.1.is_none().then_some(()));
    drop(second);
    assert_eq!(scene.exit().exit_code, 0);
    assert_eq!(scene.stdout(), "heard one\nheard two\nover\n");
}

#[test]
fn not_everybody_speaks_at_a_time() {
    let scene = listener(false);
    let spoken: Vec<_> = (0..8).map(|number| say(&scene, &number.to_string())).collect();
    let refused = Reply::Error("too many clients speak to the container".to_owned());
    assert_eq!(scene.ask(&Request::Stdin), refused);
    assert_eq!(scene.ask(&Request::Status), Reply::Ok("running".to_owned()));
    drop(spoken);
    let is_free = || (scene.ask(&Request::Stdin) == done()).then_some(());
    eventually("room", is_free);
}

#[test]
fn who_reads_nothing_has_no_stdin() {
    let scene = Scene::script("echo up; exec sleep 1000");
    scene.start();
    assert!(stdin(&scene).expect("an answer").1.is_none());
}

#[test]
fn a_terminal_is_typed_at_and_stays() {
    let scene = Scene::script(LISTENER).with(|process| {
        process.stdin = true;
        process.stdin_once = true;
        process.tty = true;
    });
    scene.start();
    drop(say(&scene, "one"));
    let (_socket, mut inlet) = say(&scene, "two");
    // The end of its input, as it is typed.
    inlet.write_all(b"\x04").expect("write");
    assert_eq!(scene.exit().exit_code, 0);
    let said = "one\r\nheard one\r\ntwo\r\nheard two\r\nover\r\n";
    assert_eq!(scene.stdout(), said);
}

#[test]
fn stdin_survives_monitor_and_copier() {
    let scene = listener(true);
    let spoken = say(&scene, "one");
    let (first, copier) = eventually("two processes", || scene.processes(scene.capture_pid().cast_signed()));
    kill(first);
    eventually("its end", || (!is_alive(first)).then_some(()));
    // The connection is gone, and nobody has closed anything.
    assert_eq!(read_replies(&spoken.0, 1), []);
    drop(spoken);
    let spoken = say(&scene, "two");
    let (_, new) = eventually("a new pair", || scene.processes(copier));
    kill(new);
    eventually("another copier", || scene.processes(copier).filter(|(_, other)| *other != new));
    writeln!(&spoken.1, "three").expect("write");
    scene.wait_for("heard three");
    drop(spoken);
    scene.exit();
    assert_eq!(scene.stdout(), "heard one\nheard two\nheard three\nover\n");
}

#[test]
fn a_new_build_knows_with_whom_stdin_ends() {
    let scene = listener(true);
    let spoken = say(&scene, "one");
    let path = scene.temp.path().join("build");
    fs::copy(env!("CARGO_BIN_EXE_podlog-capture"), &path).expect("copy");
    let socket = scene.dir.connect_control().expect("connect");
    let request = Request::HandOver(Program { argv: vec![path.display().to_string()] });
    let program = File::open(&path).expect("a program");
    control::send(&socket, format!("{request}\n").as_bytes(), &[program]).expect("send");
    assert_eq!(read_replies(&socket, 1), [done()]);
    writeln!(&spoken.1, "two").expect("write");
    scene.wait_for("heard two");
    drop(spoken);
    assert_eq!(scene.exit().exit_code, 0);
    assert_eq!(scene.stdout(), "heard one\nheard two\nover\n");
}
