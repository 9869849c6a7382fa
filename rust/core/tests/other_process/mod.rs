//! Another process of a test: this program again, which runs one of its tests, reads commands and answers in lines.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Killed when dropped.
pub struct OtherProcess {
    pub child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl OtherProcess {
    /// Runs test `entry` of this program, which `command` starts.
    pub fn start(command: &mut Command, entry: &str) -> Self {
        let mut child = command
            .args(["--exact", entry, "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command without waiting for its answer, which may never come.
    pub fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
        self.input.flush().unwrap();
    }

    /// Sends a command and gives the words of its answer.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.send(command);
        self.answer()
    }

    /// The same of an answer that is all numbers.
    pub fn ask_numbers(&mut self, command: &str) -> Vec<u64> {
        self.send(command);
        self.numbers()
    }

    /// The words of the next answer: what stands behind `answer:` in a line.
    pub fn answer(&mut self) -> Vec<String> {
        let mut output = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                panic!("the other process has ended, {:?}: {output}", self.child.wait());
            }
            // What the test harness prints is not for us.
            if let Some((_, answer)) = line.split_once("answer:") {
                return answer.split_whitespace().map(str::to_owned).collect();
            }
            output += &line;
        }
    }

    pub fn numbers(&mut self) -> Vec<u64> {
        self.answer().iter().map(|word| word.parse().unwrap()).collect()
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
