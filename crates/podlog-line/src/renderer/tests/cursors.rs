//! Places of a log, and going on behind them.

use super::*;

const MARK: FileMark = FileMark { base: Some(100), fingerprint: 7 };

/// A renderer that goes on where another one stood, having read up to `done` again.
fn resumed(selection: &Selection, file: &[u8], cursor: Cursor, out: &mut Vec<u8>) -> Renderer {
    assert_eq!(cursor.file, MARK);
    let mut renderer = Renderer::new(selection);
    let back = cursor.place.back();
    let begin = cursor.place.offset - back;
    renderer.resume(cursor, back);
    renderer.begin_file(MARK, begin);
    let again = &file[begin as usize..cursor.place.offset as usize];
    let rendered = renderer.render(again, out).expect("a log");
    assert!(rendered.consumed == again.len() || rendered.state == RenderState::LimitReached);
    renderer
}

/// Renders the rest of a log, as far as there is room.
fn go_on(renderer: &mut Renderer, file: &[u8], out: &mut Vec<u8>) {
    let begin = renderer.cursor().expect("a place").place.offset as usize;
    if renderer.render(&file[begin..], out).expect("a log").state == RenderState::More {
        renderer.finish(out).expect("a log");
    }
}

proptest! {
    #[test]
    fn what_is_resumed_is_exactly_the_rest(
        Text(file) in arbitrary_file(),
        selection in arbitrary_selection(),
        before in prop::collection::vec(0..200usize, 0..20),
        after in prop::collection::vec(0..200usize, 0..20),
    ) {
        let mut whole = Vec::new();
        let mut renderer = Renderer::new(&selection);
        renderer.begin_file(MARK, 0);
        let done = feed(&mut renderer, &file, 0, &before, &mut whole);
        let (cursor, delivered) = (renderer.cursor().expect("a place"), whole.len());
        feed(&mut renderer, &file, done, &after, &mut whole);
        let mut rest = Vec::new();
        let mut renderer = resumed(&selection, &file, cursor, &mut rest);
        prop_assert_eq!(rest.len(), 0, "everything up to there was delivered");
        prop_assert_eq!(renderer.cursor(), Some(cursor));
        feed(&mut renderer, &file, done, &after, &mut rest);
        prop_assert_eq!(String::from_utf8_lossy(&whole[delivered..]), String::from_utf8_lossy(&rest));
    }

    #[test]
    fn what_a_limit_has_cut_off_is_resumed(
        Text(file) in arbitrary_file(),
        selection in arbitrary_selection(),
        limit in 0..400u64,
        second_limit in 1..50u64,
    ) {
        let mut whole = Vec::new();
        let mut renderer = Renderer::new(&selection);
        renderer.render(&file, &mut whole).expect("a log");
        renderer.finish(&mut whole).expect("a log");
        let mut parts = Vec::new();
        let mut renderer = Renderer::new(&Selection { limit_bytes: Some(limit), ..selection.clone() });
        renderer.begin_file(MARK, 0);
        for limit_bytes in [Some(second_limit), None] {
            go_on(&mut renderer, &file, &mut parts);
            let cursor = renderer.cursor().expect("a place");
            renderer = resumed(&Selection { limit_bytes, ..selection.clone() }, &file, cursor, &mut parts);
        }
        prop_assert_eq!(String::from_utf8_lossy(&whole[..parts.len().min(whole.len())]), String::from_utf8_lossy(&parts));
        go_on(&mut renderer, &file, &mut parts);
        prop_assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&parts));
    }

    #[test]
    fn each_line_names_the_place_behind_it(Text(file) in arbitrary_file(), selection in arbitrary_selection()) {
        let plain = finished(&selection, &file);
        let with_cursors = Selection { cursors: true, ..selection.clone() };
        let mut out = Vec::new();
        let mut renderer = Renderer::new(&with_cursors);
        renderer.begin_file(MARK, 0);
        renderer.render(&file, &mut out).expect("a log");
        renderer.finish(&mut out).expect("a log");
        let mut lines = Vec::new();
        for line in out.split_inclusive(|byte| *byte == b'\n') {
            let space = memchr(b' ', line).expect("a cursor");
            let cursor: Cursor = std::str::from_utf8(&line[..space]).expect("text").parse().expect("a cursor");
            lines.push((cursor, &line[space + 1..]));
        }
        let texts: Vec<&[u8]> = lines.iter().map(|(_, text)| *text).collect();
        let texts = texts.concat();
        prop_assert_eq!(String::from_utf8_lossy(&texts), String::from_utf8_lossy(&plain));
        for (index, (cursor, _)) in lines.iter().enumerate() {
            let mut rest = Vec::new();
            let mut renderer = resumed(&with_cursors, &file, *cursor, &mut rest);
            renderer.render(&file[cursor.place.offset as usize..], &mut rest).expect("a log");
            renderer.finish(&mut rest).expect("a log");
            let expected: usize = out.split_inclusive(|byte| *byte == b'\n').take(index + 1).map(<[u8]>::len).sum();
            prop_assert_eq!(String::from_utf8_lossy(&out[expected..]), String::from_utf8_lossy(&rest));
        }
    }
}

#[test]
fn a_limit_between_a_broken_line_and_those_that_waited_loses_none_of_them() {
    let file = log(&["e1P prompt", "o2F waits", "e3F end"]);
    let whole = b"prompt\nwaits\nend\n";
    for limit in 0..whole.len() as u64 {
        let mut out = Vec::new();
        let mut renderer = Renderer::new(&Selection { limit_bytes: Some(limit), ..Selection::default() });
        renderer.begin_file(MARK, 0);
        // Nothing comes for a while, twice.
        for length in [log(&["e1P prompt"]).len(), file.len() - log(&["e3F end"]).len()] {
            let done = renderer.cursor().expect("a place").place.offset as usize;
            renderer.render(&file[done..length], &mut out).expect("a log");
            renderer.idle(&mut out);
        }
        let cursor = renderer.cursor().expect("a place");
        let mut renderer = resumed(&Selection::default(), &file, cursor, &mut out);
        renderer.idle(&mut out);
        go_on(&mut renderer, &file, &mut out);
        let text = String::from_utf8_lossy(&out);
        let orders = ["prompt\nwaits\nend\n", "promptend\nwaits\n", "waits\npromptend\n"];
        assert!(orders.contains(&&*text), "{limit}: {text}");
    }
}

#[test]
fn a_prompt_has_a_cursor_of_its_own() {
    let file = log(&["o1P password: ", "e2P ? ", "o3P ***", "o4F *", "e5F ", "o6F done"]);
    let with_cursors = Selection { cursors: true, ..Selection::default() };
    let ends = |records: &[&str]| log(records).len();
    let mut out = Vec::new();
    let mut renderer = Renderer::new(&with_cursors);
    renderer.begin_file(MARK, 0);
    // Nothing comes for a while after each of these.
    let prompts = ends(&["o1P password: ", "e2P ? "]);
    for end in [prompts, prompts, ends(&["o1P password: ", "e2P ? ", "o3P ***"]), file.len()] {
        let done = renderer.cursor().expect("a place").place.offset as usize;
        renderer.render(&file[done..end], &mut out).expect("a log");
        renderer.idle(&mut out);
    }
    renderer.finish(&mut out).expect("a log");
    let text = String::from_utf8(out).expect("text");
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').expect("a cursor")).collect();
    let contents: Vec<_> = lines.iter().map(|(_, content)| *content).collect();
    assert_eq!(contents, ["password: ", "? ", "***", "*", "done"]);
    for (index, (cursor, _)) in lines.iter().enumerate() {
        let cursor: Cursor = cursor.parse().expect("a cursor");
        let mut rest = Vec::new();
        let mut renderer = resumed(&Selection::default(), &file, cursor, &mut rest);
        go_on(&mut renderer, &file, &mut rest);
        // Nothing is idle now: what follows is joined.
        let expected = match index {
            0 => "****\n? \ndone\n",
            1 => "****\ndone\n",
            _ => &contents[index + 1..].iter().map(|line| format!("{line}\n")).collect::<String>(),
        };
        assert_eq!(String::from_utf8_lossy(&rest), expected, "behind {index}");
    }
}
