use super::*;

/// A file whose records have these labels; pixel `p` of record `i` is `p + i`, but for its overflow.
fn file(set: Cifar, labels: &[u8]) -> Vec<u8> {
    let record = |(i, &label): (usize, &u8)| {
        let head = if set == Cifar::Ten { vec![label] } else { vec![3, label] };
        head.into_iter().chain((0..3072).map(move |p| (p + i) as u8))
    };
    labels.iter().enumerate().flat_map(record).collect()
}

fn write(folder: &Path, files: &[(&str, Vec<u8>)]) {
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
}

fn ten(folder: &Path) {
    for batch in 1..=5 {
        write(folder, &[(&format!("data_batch_{batch}.bin"), file(Cifar::Ten, &[batch, 9]))]);
    }
    write(folder, &[("test_batch.bin", file(Cifar::Ten, &[0]))]);
}

#[test]
fn batches_follow_each_other() {
    let home = tempfile::tempdir().unwrap();
    ten(home.path());
    let data = load(home.path(), Cifar::Ten).unwrap();
    assert_eq!(data.train.labels, [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
    assert_eq!((data.train.c, data.train.h, data.train.w), (3, 32, 32));
    data.train.check().unwrap();
    // The red plane's first pixels of an odd record, then the first of the green one: bytes as they are in the file.
    assert_eq!(data.train.image(7).unwrap()[..3], [1, 2, 3]);
    assert_eq!(data.train.image(7).unwrap()[1024 + 5], 6);
    assert_eq!(data.test.labels, [0]);
    assert_eq!(data.classes[..2], ["airplane", "automobile"]);
    assert_eq!(data.name, home.path().file_name().unwrap().to_str().unwrap());
}

#[test]
fn the_names_file_names_the_classes() {
    let home = tempfile::tempdir().unwrap();
    ten(home.path());
    let names: Vec<String> = (0..10).map(|i| format!("class {i}")).collect();
    write(home.path(), &[("batches.meta.txt", (names.join("\r\n") + "\n\n").into_bytes())]);
    assert_eq!(load(home.path(), Cifar::Ten).unwrap().classes, names);
    for (text, part) in [
        ("a\nb\n".into(), "2 names of classes, but there are 10 classes"),
        (b"\xff\n".repeat(10), "utf-8"),
        (vec![b'a'; 1 << 17], "bytes: 131072, but at most 65536"),
    ] {
        write(home.path(), &[("batches.meta.txt", text)]);
        let error = load(home.path(), Cifar::Ten).unwrap_err().to_string();
        assert!(error.contains("batches.meta.txt: ") && error.contains(part), "{error}");
    }
}

#[test]
fn of_a_hundred_classes_the_fine_label_counts() {
    let home = tempfile::tempdir().unwrap();
    let (train, test) = (file(Cifar::Hundred, &[99, 0, 50]), file(Cifar::Hundred, &[42]));
    write(home.path(), &[("train.bin", train), ("test.bin", test)]);
    let data = load(home.path(), Cifar::Hundred).unwrap();
    assert_eq!((&data.train.labels[..], &data.test.labels[..]), (&[99, 0, 50][..], &[42][..]));
    assert_eq!(data.train.image(2).unwrap()[..2], [2, 3]);
    assert_eq!((data.classes.len(), data.classes[99].as_str()), (100, "99"));
    let names: Vec<String> = (0..100).map(|i| format!("fine{i}")).collect();
    write(home.path(), &[("fine_label_names.txt", names.join("\n").into_bytes())]);
    assert_eq!(load(home.path(), Cifar::Hundred).unwrap().classes, names);
}

#[test]
fn what_is_no_row_of_records_is_refused() {
    let whole = file(Cifar::Ten, &[1, 2, 3]);
    assert_eq!(parse(&whole, Cifar::Ten).unwrap().len(), 3);
    for (len, want) in [(0, 3073), (1, 3073), (3072, 3073), (3074, 2 * 3073), (3 * 3073 - 1, 3 * 3073)] {
        let error = parse(&whole[..len], Cifar::Ten).unwrap_err();
        assert_eq!(error, FormatError::Size { got: len as u64, want });
    }
    for (set, labels, bad) in [(Cifar::Ten, [9, 10], 10), (Cifar::Hundred, [99, 100], 100)] {
        let error = parse(&file(set, &labels), set).unwrap_err();
        assert_eq!(error, FormatError::Label { record: 1, label: bad, classes: bad as usize });
    }
}

#[test]
fn a_missing_batch_is_named() {
    let home = tempfile::tempdir().unwrap();
    ten(home.path());
    std::fs::remove_file(home.path().join("data_batch_4.bin")).unwrap();
    let error = load(home.path(), Cifar::Ten).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("data_batch_4.bin: "), "{error}");
}
