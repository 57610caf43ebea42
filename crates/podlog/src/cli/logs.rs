//! `podlog logs`: the arguments and flags of `kubectl logs`.

use std::error::Error as _;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use podlog_client::logs::{LogsOptions, Streams};
use podlog_client::{ClientError, ConnectionOptions};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::exit::Exit;

/// Print the logs of a container in a pod, or of the pods of a workload, from any cluster of your kubeconfig.
///
/// Arguments, flags, output and exit codes are those of `kubectl logs`, with one difference: a stream that breaks off
/// ends with an error, never as if it were complete.
#[derive(Debug, clap::Args)]
#[command(
    args_override_self = true,
    override_usage = "podlog logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER] [flags]\n       podlog logs -l LABELS [flags]",
    after_help = "Examples:\n  podlog logs my-pod -n prod -c web -f\n  podlog logs my-pod -n prod --since=10m --tail=500\n  podlog logs -l app=web --prefix --all-containers\n  podlog logs deploy/web --previous"
)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    options: LogsOptions,
    #[command(flatten)]
    connection: ConnectionOptions,
}

pub(super) fn run(mut args: LogsArgs) -> anyhow::Result<Exit> {
    args.options.colour = super::colour();
    podlog_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(print(&args)) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.is_closed_output() => Ok(Exit::Success),
        Err(error) => {
            // The client's errors are whole texts, as kubectl prints them.
            anstream::eprintln!("{error}");
            Ok(Exit::Failure)
        }
    }
}

async fn print(args: &LogsArgs) -> Result<(), ClientError> {
    let connection = args.connection.connect().await?;
    let printed = podlog_client::logs::run(&connection, &args.options, Streams::standard());
    if !args.options.follow {
        return printed.await;
    }
    // A log that has gone quiet would find out with its next line only.
    tokio::select! {
        printed = printed => printed,
        () = reader_gone() => Ok(()),
    }
}

/// Resolves when whoever reads our output through a pipe has gone.
async fn reader_gone() {
    let (gone, told) = oneshot::channel();
    // The thread waits for nothing else, and ends with the process.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        // No flag is asked for: errors and hang-ups are always told.
        if poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None).is_ok() {
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What kubectl says of a wrong flag (`github.com/spf13/pflag/errors.go`), where it is about a flag.
pub(super) fn flag_error(error: &clap::Error) -> String {
    let said = error.to_string();
    let first_line = said.lines().next().unwrap_or_default();
    let text = words(error).unwrap_or_else(|| first_line.trim_start_matches("error: ").to_owned());
    format!("error: {text}\nSee 'podlog logs --help' for usage.")
}

fn words(error: &clap::Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let given = context(ContextKind::InvalidArg)?;
    let flag = given.split([' ', '=', '[']).next().unwrap_or(given);
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let reason = match error.kind() {
        ErrorKind::UnknownArgument => return unknown(flag),
        ErrorKind::InvalidValue if value.is_empty() => {
            return Some(format!("flag needs an argument: {flag}"));
        }
        ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) => format!("must be one of {}", valid.join(", ")),
            _ => return None,
        },
        ErrorKind::ValueValidation => error.source()?.to_string(),
        _ => return None,
    };
    let quoted = podlog_api::go::quote(value);
    Some(format!("invalid argument {quoted} for \"{}\" flag: {reason}", with_shorthand(flag)))
}

fn unknown(flag: &str) -> Option<String> {
    if flag.starts_with("--") {
        return Some(format!("unknown flag: {flag}"));
    }
    let letter = flag.strip_prefix('-')?.chars().next()?;
    Some(format!("unknown shorthand flag: '{letter}' in {flag}"))
}

/// `-f, --follow` for `--follow`.
fn with_shorthand(flag: &str) -> String {
    let command = super::Cli::command();
    let logs = command.find_subcommand("logs");
    let argument =
        logs.and_then(|logs| logs.get_arguments().find(|a| a.get_long() == flag.strip_prefix("--")));
    match argument.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, {flag}"),
        None => flag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn wrong_flags_are_told_in_kubectls_words() {
        let rows = [
            ("--nosuch x", "unknown flag: --nosuch"),
            ("--nosuch=5 x", "unknown flag: --nosuch"),
            ("-Z x", "unknown shorthand flag: 'Z' in -Z"),
            ("x --tail", "flag needs an argument: --tail"),
            (
                "--tail=abc x",
                r#"invalid argument "abc" for "--tail" flag: strconv.ParseInt: parsing "abc": invalid syntax"#,
            ),
            ("--since zz x", r#"invalid argument "zz" for "--since" flag: time: invalid duration "zz""#),
            (
                "x -f=maybe",
                r#"invalid argument "maybe" for "-f, --follow" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#,
            ),
            (
                "x --stream=foo",
                r#"invalid argument "foo" for "--stream" flag: must be one of stdout, stderr"#,
            ),
        ];
        for (arguments, text) in rows {
            let error =
                super::super::Cli::try_parse_from(["podlog", "logs"].into_iter().chain(arguments.split(' ')))
                    .unwrap_err();
            assert_eq!(flag_error(&error), format!("error: {text}\nSee 'podlog logs --help' for usage."));
        }
    }

    #[test]
    fn flags_are_read_as_kubectls() {
        let rows = [
            "x --tail 1 --tail 2 -f -f",
            "x --tail=2 --follow=T -p=0",
            "--tail=2 -f=true x --max-log-requests=-1",
        ];
        for arguments in rows {
            let words = ["podlog", "logs"].into_iter().chain(arguments.split(' '));
            let super::super::Applet::Logs(args) = super::super::Cli::try_parse_from(words).unwrap().applet
            else {
                panic!("another applet");
            };
            let options = args.options;
            assert_eq!(
                (options.tail, options.follow, options.previous),
                (Some(2), true, false),
                "{arguments}"
            );
            assert_eq!(options.arguments, ["x"]);
        }
    }
}
