use super::writer::Writer;
use super::*;
use crate::pg::data_dir::DataDir;
use std::fs;
use std::path::Path;

const SEGMENT: u64 = super::writer::SEGMENT;
const SYSTEM: u64 = super::writer::SYSTEM;

fn walk(folder: &Path, timeline: u32, system: u64, start: Lsn) -> Result<Walk, String> {
    let folder = DataDir::open(folder).map_err(|error| error.to_string())?;
    folder
        .enter(|folder| Ok(super::walk(folder, timeline, system, start)))
        .expect("it can be entered")
}

fn walked(writer: &Writer, start: Lsn) -> Result<Walk, String> {
    let folder = tempfile::tempdir().expect("a folder");
    writer.save(folder.path());
    walk(folder.path(), writer.timeline, SYSTEM, start)
}

#[test]
fn the_checksum_is_castagnolis() {
    let mut checksum = Checksum::new();
    checksum.add(b"123456789");
    assert_eq!(checksum.value(), 0xE306_9283);
}

#[test]
fn records_are_walked_over_pages_and_segments_and_commits_are_counted() {
    let mut writer = Writer::begin();
    let first = writer.record(10, 0, 100);
    for length in [0, 1, 7, 8_000, 8_192, 30_000, 1_500_000, 3] {
        writer.record(10, 0, length);
    }
    writer.record(1, 0x00, 40);
    writer.record(1, 0x80, 9_000);
    writer.record(1, 0x10, 40);
    writer.record(1, 0x20, 40);
    writer.switch();
    writer.record(1, 0x30, 40);
    let end = Lsn(writer.place);
    let walk = Walk {
        end,
        records: 15,
        commits: 4,
    };
    assert_eq!(walked(&writer, first), Ok(walk));
    let at_the_end = Walk {
        end,
        records: 0,
        commits: 0,
    };
    assert_eq!(walked(&writer, end), Ok(at_the_end));
}

#[test]
fn every_torn_byte_ends_the_log_before_its_record() {
    let mut writer = Writer::begin();
    let first = writer.record(10, 0, 50);
    let second = writer.record(1, 0, 9_000);
    let third = writer.place;
    writer.record(1, 0, 50);
    let begin = (second.0 - SEGMENT) as usize;
    for at in (begin..(third - SEGMENT) as usize - 8).step_by(97) {
        let mut torn = Writer {
            bytes: writer.bytes.clone(),
            ..writer
        };
        torn.bytes[at] ^= 0xFF;
        let found = walked(&torn, first).expect("it begins");
        // The reserve of a page's header is of no meaning.
        let whole = found.end > second;
        assert!(
            !whole || at % PAGE as usize >= 20 && at % (PAGE as usize) < 24,
            "{at}"
        );
        assert!(
            whole || found.commits == 0 && found.end == second,
            "{at} {found:?}"
        );
    }
    let mut zeroed = Writer {
        bytes: writer.bytes.clone(),
        ..writer
    };
    zeroed.bytes.truncate(begin + 4_000);
    assert_eq!(walked(&zeroed, first).map(|walk| walk.end), Ok(second));
}

#[test]
fn what_a_crash_cut_off_is_skipped_once_recovery_has_marked_it() {
    let mut writer = Writer::begin();
    let first = writer.record(10, 0, 50);
    let before = writer.before;
    let cut = writer.record(10, 0, 12_000);
    let page = cut.0.next_multiple_of(PAGE);
    writer.bytes.truncate((page - SEGMENT) as usize);
    (writer.place, writer.before) = (page, before);
    assert_eq!(walked(&writer, first).map(|walk| walk.end), Ok(cut));
    writer.record(1, 0, 50);
    let flags = (page - SEGMENT) as usize + 2;
    writer.bytes[flags] = OVERWRITES as u8;
    for from in [first, cut] {
        let found = walked(&writer, from).expect("it begins");
        assert_eq!((found.end.0, found.commits), (writer.place, 1));
    }
}

#[test]
fn a_log_of_others_is_none_and_one_that_is_gone_is_told() {
    let mut writer = Writer::begin();
    let first = writer.record(1, 0, 100);
    let folder = tempfile::tempdir().expect("a folder");
    assert!(
        walk(folder.path(), 1, SYSTEM, first).is_err(),
        "nothing there"
    );
    assert!(walk(&folder.path().join("x"), 1, SYSTEM, first).is_err());
    writer.save(folder.path());
    let foreign = walk(folder.path(), 1, SYSTEM + 1, first);
    assert!(foreign.is_err(), "another system's: {foreign:?}");
    let beyond = Lsn(5 * SEGMENT);
    assert_eq!(
        walk(folder.path(), 1, SYSTEM, beyond).map(|it| it.end),
        Ok(beyond)
    );
    let gone = walk(folder.path(), 1, SYSTEM, Lsn(40));
    assert!(gone.is_err_and(|why| why.contains("removed already")));
    // A recycled segment still holds the pages of its old place.
    let name = |number: u64| folder.path().join(format!("{:08X}{:016X}", 1, number));
    fs::copy(name(1), name(2)).expect("copies");
    assert_eq!(
        walk(folder.path(), 1, SYSTEM, Lsn(2 * SEGMENT)).map(|it| it.records),
        Ok(0)
    );
    // Nobody is led elsewhere.
    fs::rename(name(1), folder.path().join("aside")).expect("renames");
    std::os::unix::fs::symlink(folder.path().join("aside"), name(1)).expect("links");
    assert!(walk(folder.path(), 1, SYSTEM, first).is_err());
}

#[test]
fn a_new_timeline_is_walked_from_within_the_old() {
    let mut old = Writer::begin();
    let first = old.record(1, 0, 100);
    let fork = old.place;
    let mut new = old.clone();
    old.record(1, 0, 2_000_000);
    let folder = tempfile::tempdir().expect("a folder");
    old.save(folder.path());
    new.timeline = 2;
    new.record(1, 0, 9_000);
    new.save(folder.path());
    let found = walk(folder.path(), 2, SYSTEM, first).expect("it begins");
    assert_eq!((found.end.0, found.commits), (new.place, 2));
    let found = walk(folder.path(), 2, SYSTEM, Lsn(fork)).expect("it begins");
    assert_eq!(found.commits, 1);
}

#[test]
fn a_history_tells_where_each_timeline_was_left() {
    let text = "1\t0/5000028\tno recovery target specified\n\n\
                # a comment\n2\t16/B374D848\tno recovery target specified\n";
    let place = "16/B374D848".parse().expect("a place");
    let found = vec![(1, Lsn(0x500_0028)), (2, place)];
    assert_eq!(parse_history(text), Some(found));
    assert_eq!(parse_history(""), Some(Vec::new()));
    for odd in ["x", "1", "1 x", "-1 0/1 y"] {
        assert_eq!(parse_history(odd), None, "{odd:?}");
    }
}

#[test]
fn names_alone_raise_no_timeline_and_take_no_row_away() {
    let mut writer = Writer::begin();
    let first = writer.record(1, 0, 100);
    writer.record(1, 0, 100);
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    writer.save(at);
    let control = Control {
        system: SYSTEM,
        ended: crate::pg::control_file::Ended::InProduction,
        checkpoint: first,
        timeline: 1,
    };
    let newest = || {
        let folder = DataDir::open(at).expect("it is there");
        folder.enter(|folder| Ok(newest_timeline(folder, &control)))
    };
    let commits = |timeline| walk(at, timeline, SYSTEM, first).map(|walk| walk.commits);
    let write = |name: &str, text: &str| fs::write(at.join(name), text).expect("writes");
    assert_eq!(newest().expect("reads"), 1);
    write("FFFFFFFF.history", "");
    write("00000009.history", "1\t0/3000000\tno more than a name\n");
    write("00000007.history", "5\t0/3000000\tnot its own\n");
    write("8.history", "1\t0/3000000\tshort\n");
    std::os::unix::fs::symlink("/dev/zero", at.join("0000000A.history")).expect("links");
    fs::create_dir(at.join("0000000B.history")).expect("makes");
    assert_eq!(newest().expect("reads"), 1);
    // Nothing but a size.
    for (timeline, bytes) in [(1, 2 * SEGMENT), (1, 1 << 40), (9, SEGMENT)] {
        let name = format!("{timeline:08X}0000000000000002");
        let sparse = fs::File::create(at.join(name)).expect("makes");
        sparse.set_len(bytes).expect("no bytes");
        assert_eq!(newest().expect("reads"), 1);
        assert_eq!(commits(1), Ok(2));
    }
    let sparse = fs::File::create(at.join("000000090000000000000001")).expect("makes");
    sparse.set_len(SEGMENT).expect("no bytes");
    assert_eq!(commits(1), Ok(2));
    // A promotion a moment before.
    fs::remove_file(at.join("00000009.history")).expect("it is there");
    write(
        "00000002.history",
        "1\t0/100200\tno recovery target specified\n",
    );
    let copy = at.join("000000020000000000000001");
    fs::copy(at.join("000000010000000000000001"), copy).expect("copies");
    assert_eq!(newest().expect("reads"), 2);
}
