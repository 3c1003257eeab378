use super::*;
use std::fs;

fn refusal(path: &Path) -> String {
    load(path.to_str().unwrap(), 1).unwrap_err().to_string()
}

#[test]
fn a_form_is_told_by_the_names_in_its_directory() {
    let one = |name: &str| FORMATS.iter().filter(|(_, has, _)| has(name)).map(|(form, ..)| *form).collect::<Vec<_>>();
    for (form, names) in [
        ("CIFAR-10", &["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"][..]),
        ("CIFAR-100", &["train.bin", "test.bin"]),
        ("an image folder", &["train", "test", "val"]),
        ("IDX files", &["train-images-idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images-idx3-ubyte.gz"]),
        ("IDX files", &["t10k-labels.idx1-ubyte.gz"]),
    ] {
        names.iter().for_each(|name| assert_eq!(one(name), [form], "{name}"));
    }
    for name in ["data_batch_1", "data_batch_6.bin", "train-images-idx1-ubyte", "Train", "shapes", ""] {
        assert!(one(name).is_empty(), "{name}");
    }
}

#[test]
fn what_is_no_data_set_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (none, file, empty) = (home.path().join("none"), home.path().join("file"), home.path().join("empty"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&empty).unwrap();
    for path in [&none, &file, &empty, &file.join("below")] {
        let text = refusal(path);
        assert!(text.starts_with(&format!("{}: no data set: expected `shapes`", path.display())), "{text}");
    }
    fs::write(empty.join("train.bin"), "").unwrap();
    fs::create_dir(empty.join("train")).unwrap();
    assert!(refusal(&empty).ends_with("empty: holds CIFAR-100 and an image folder: which is meant?"));
    fs::remove_dir(empty.join("train")).unwrap();
    assert!(refusal(&empty).ends_with("train.bin: 0 bytes, but 3074 are expected"));
    fs::remove_file(empty.join("train.bin")).unwrap();
    fs::create_dir(empty.join("train.bin")).unwrap();
    assert!(refusal(&empty).ends_with("train.bin: is not a file"));
}

#[test]
fn a_name_is_the_last_part_of_the_path() {
    let home = tempfile::tempdir().unwrap();
    let deep = home.path().join("mnist/raw");
    fs::create_dir_all(&deep).unwrap();
    let names = [deep.clone(), deep.join("."), deep.join(".."), deep.join("../raw/")].map(|p| read::name(&p));
    assert_eq!(names, ["raw", "raw", "mnist", "raw"]);
}

#[test]
fn a_huge_file_is_refused_unread() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("train.bin");
    // A file with a hole takes no room.
    fs::File::create(&path).unwrap().set_len(read::MOST_BYTES + 1).unwrap();
    assert!(refusal(home.path()).ends_with("train.bin: bytes: 4294967297, but at most 4294967296 are read"));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    for bytes in [u64::MAX, i64::MAX as u64] {
        let error = read::reserve(&mut Vec::new(), bytes, Path::new("set")).unwrap_err().to_string();
        assert_eq!(error, format!("set: not enough memory for {bytes} bytes"));
    }
}
