//! Rules of the sources, and examples in the documents, that no compiler checks.

use std::path::{Path, PathBuf};

/// Every Rust file of the two crates, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.map(|e| e.unwrap().path()) {
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "kernels", "fuzz/fuzz_targets"] {
        walk(&root.join(folder), &mut files);
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root).unwrap().to_path_buf(), text)
    };
    let sources: Vec<_> = files.into_iter().map(read).collect();
    assert!(sources.len() > 20, "only {} files found", sources.len());
    sources
}

#[test]
fn intrinsics_stay_behind_the_virtual_vector() {
    // Written so that this file does not contain what it looks for.
    let intrinsics = ["core", "std"].map(|c| format!("{c}::arch::"));
    let allowed = |path: &Path| path.starts_with("kernels/src/simd") || path == Path::new("kernels/src/isa.rs");
    let offenders: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !allowed(path) && intrinsics.iter().any(|i| text.contains(i)))
        .map(|(path, _)| path)
        .collect();
    assert!(offenders.is_empty(), "intrinsics outside kernels/src/simd and isa.rs: {offenders:?}");
}

#[test]
fn files_stay_short() {
    const MOST: usize = 400;
    let long: Vec<_> =
        sources().into_iter().map(|(path, text)| (text.lines().count(), path)).filter(|(n, _)| *n > MOST).collect();
    assert!(long.is_empty(), "over {MOST} lines: {long:?}");
}

#[test]
fn the_platforms_mathematics_is_not_called() {
    // Their last bits differ from platform to platform: libm's do not.
    let names = [
        "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "sin", "cos", "sin_cos", "tan", "asin", "acos",
        "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "powf", "powi", "cbrt", "hypot",
    ];
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        // Tests may compare with the platform's.
        if !(path.starts_with("src") || path.starts_with("kernels/src")) || path.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in text.lines().take_while(|l| !l.starts_with("mod tests {")).enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let calls = |name: &&str| {
                [".", "f32::", "f64::", "Float::"].iter().any(|of| code.contains(&format!("{of}{name}(")))
            };
            if names.iter().any(calls) {
                offenders.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(offenders.is_empty(), "use libm: {offenders:#?}");
}

#[test]
fn the_models_in_the_readme_parse() {
    let readme = include_str!("../README.md");
    let models: Vec<&str> = readme.split("```toml\n").skip(1).map(|t| t.split("```").next().unwrap()).collect();
    assert!(!models.is_empty());
    for text in models {
        rectify::model::Model::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
}

#[test]
fn the_files_that_the_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/paper.md")).unwrap();
    let named = |word: &&str| ["src/", "kernels/", "tests/"].iter().any(|start| word.starts_with(start));
    let names: Vec<&str> = text.split('`').filter(named).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(root.join(name).exists(), "docs/paper.md: {name}");
    }
}
