//! Reads a chapter: its fenced blocks, and what the comments before them ask for.

use std::path::Path;

/// What is done with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Run by the shell.
    Shell,
    /// Run by `counterfoil query`.
    Query,
    /// Run by the Python of the other engines.
    Python,
    /// Left to rustdoc.
    Doctest,
    /// Written to a file; `equal_to` names the file of the repository that it must be equal to.
    Write { path: String, append: bool, equal_to: Option<String> },
    /// What the block before it printed.
    Output,
    /// A drawing, or an excerpt that nothing printed.
    Figure,
    /// Not run, for a reason.
    NotRun(String),
}

/// One fenced block, or one hidden command.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) task: Task,
    /// The line of its fence.
    pub(super) line: usize,
    pub(super) language: String,
    pub(super) text: String,
    pub(super) exit: i32,
    pub(super) rows: Option<usize>,
    pub(super) needs: Vec<String>,
}

/// A chapter as it is run.
#[derive(Debug)]
pub(super) struct Chapter {
    pub(super) blocks: Vec<Block>,
    /// Options of its sandbox.
    pub(super) sandbox: Vec<String>,
}

/// Languages in which output is shown.
const OUTPUT: [&str; 4] = ["text", "json", "ndjson", "csv"];

/// The inside of a comment that stands on a line of its own.
fn comment(line: &str) -> Option<&str> {
    Some(line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim())
}

/// Reads the blocks of a chapter.
///
/// # Errors
///
/// The line, and what is wrong with it: a comment that is not understood, a block that nothing would check.
pub(super) fn read(text: &str) -> Result<Chapter, String> {
    let mut chapter = Chapter { blocks: Vec::new(), sandbox: Vec::new() };
    let mut comments: Vec<(usize, String)> = Vec::new();
    let mut follows_block = false;
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    while let Some((at, line)) = lines.next() {
        if let Some(inside) = comment(line) {
            if let Some(options) = inside.strip_prefix("sandbox:") {
                chapter.sandbox = options.split_whitespace().map(str::to_owned).collect();
            } else if let Some(command) = inside.strip_prefix("run:") {
                chapter.blocks.push(block(at, "sh", &format!("{}\n", command.trim()), &[], false)?);
                follows_block = false;
            } else {
                comments.push((at, inside.to_owned()));
            }
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                follows_block = false;
                if let Some((at, inside)) = comments.drain(..).find(|(_, inside)| directive(inside).is_some()) {
                    return Err(format!("line {at}: no block follows `{inside}`"));
                }
            }
            continue;
        };
        let mut body = String::new();
        loop {
            let Some((_, inner)) = lines.next() else { return Err(format!("line {at}: the block has no end")) };
            if inner.trim() == "```" {
                break;
            }
            let cut = inner.len() - inner.trim_start().len();
            body.push_str(&inner[cut.min(indent)..]);
            body.push('\n');
        }
        let read = block(at, language.trim(), &body, &comments, follows_block)?;
        follows_block = matches!(read.task, Task::Shell | Task::Query | Task::Python);
        comments.clear();
        chapter.blocks.push(read);
    }
    Ok(chapter)
}

/// The word that a comment begins with, if it is one of ours, and the rest.
fn directive(inside: &str) -> Option<(&'static str, &str)> {
    ["file:", "append:", "exit ", "rows:", "needs:", "not run:", "figure"]
        .into_iter()
        .find_map(|word| Some((word, inside.strip_prefix(word)?.trim())))
}

fn block(
    line: usize,
    language: &str,
    text: &str,
    comments: &[(usize, String)],
    follows_block: bool,
) -> Result<Block, String> {
    let mut task = None;
    let (mut exit, mut rows, mut needs) = (0, None, Vec::new());
    for (at, inside) in comments {
        let Some((word, value)) = directive(inside) else {
            return Err(format!("line {at}: `{inside}` is no comment that is understood"));
        };
        let number = || value.parse::<usize>().map_err(|_| format!("line {at}: `{value}` is no number"));
        match word {
            "exit " => exit = i32::try_from(number()?).unwrap_or(i32::MAX),
            "rows:" => rows = Some(number()?),
            "needs:" => needs = value.split_whitespace().map(str::to_owned).collect(),
            "figure" => task = Some(Task::Figure),
            "not run:" if value.is_empty() => return Err(format!("line {at}: why is it not run?")),
            "not run:" => task = Some(Task::NotRun(value.to_owned())),
            _ => {
                let (path, equal_to) = match value.split_once(" = ") {
                    Some((path, origin)) => (path.trim(), Some(origin.trim().to_owned())),
                    None => (value, None),
                };
                if Path::new(path).is_absolute() || path.contains("..") {
                    return Err(format!("line {at}: {path} leaves the chapter's folder"));
                }
                task = Some(Task::Write { path: path.to_owned(), append: word == "append:", equal_to });
            }
        }
    }
    let task = match (task, language) {
        (Some(task), _) => task,
        (None, "sh") => Task::Shell,
        (None, "sql") => Task::Query,
        (None, "python") => Task::Python,
        (None, _) if language == "rust" || language.starts_with("rust,") => Task::Doctest,
        (None, language) if OUTPUT.contains(&language) && follows_block => Task::Output,
        (None, _) => {
            return Err(format!(
                "line {line}: nothing checks this block of `{language}`; output stands right after the block that \
                 prints it, a file has `<!-- file: PATH -->`, a drawing `<!-- figure -->`"
            ));
        }
    };
    Ok(Block { task, line, language: language.to_owned(), text: text.to_owned(), exit, rows, needs })
}

/// Whether what was printed is what the chapter shows: `…` stands for anything within a line, alone for any lines.
pub(super) fn agrees(shown: &str, printed: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    lines_agree(&lines(shown), &lines(printed))
}

fn lines_agree(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "…" => (0..=printed.len()).any(|skip| lines_agree(rest, &printed[skip..])),
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, others)| line_agrees(first, line) && lines_agree(rest, others))
        }
    }
}

fn line_agrees(shown: &str, printed: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return shown == printed;
    }
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for part in &parts[1..parts.len() - 1] {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn shown_output_agrees_by_lines_and_by_what_may_differ() {
    for (shown, printed, expected) in [
        ("a\nb\n", "a\nb", true),
        ("a\n", "a\nb\n", false),
        ("a\n…\n", "a\nb\nc\n", true),
        ("…\nc\n", "a\nb\nc\n", true),
        ("…\nb\n", "a\nb\nc\n", false),
        ("took … s\n", "took 1.5 s\n", true),
        ("took … s\n", "took 1.5 ms\n", false),
        ("… and … of … end", "x and y of z end", true),
        ("ab…ba", "aba", false),
        ("", "x", false),
    ] {
        assert_eq!(agrees(shown, printed), expected, "{shown:?} against {printed:?}");
    }
}

#[test]
fn blocks_that_nothing_would_check_are_refused() {
    for (text, words) in [
        ("```json\n{}\n```\n", "nothing checks"),
        ("```sh\ntrue\n```\n\nProse.\n\n```text\nx\n```\n", "nothing checks"),
        ("<!-- files: x -->\n```toml\n```\n", "is no comment that is understood"),
        ("<!-- not run: -->\n```sh\n```\n", "why is it not run?"),
        ("<!-- exit 6 -->\nProse.\n", "no block follows"),
        ("<!-- file: ../x -->\n```toml\n```\n", "leaves the chapter's folder"),
        ("```sh\ntrue\n", "has no end"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(words), "{text}\n{error}");
    }
    let chapter =
        read("<!-- sandbox: --tickets 9 -->\n<!-- exit 6 -->\n```sh\nx\n```\n\n```text\ny\n```\n<!-- run: true -->\n")
            .unwrap();
    assert_eq!(chapter.sandbox, ["--tickets", "9"]);
    let tasks: Vec<_> = chapter.blocks.iter().map(|block| (block.task.clone(), block.exit)).collect();
    assert_eq!(tasks, [(Task::Shell, 6), (Task::Output, 0), (Task::Shell, 0)]);
}
