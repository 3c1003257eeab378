//! Descriptors: whatever parses prints as a descriptor that parses to the same problem; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rectify::problem::Problem;

fuzz_target!(|text: &str| {
    if let Ok(problem) = Problem::parse(text) {
        let printed = problem.to_string();
        match Problem::parse(&printed) {
            Ok(again) => assert_eq!(again, problem, "{text:?} prints as {printed:?}"),
            Err(error) => panic!("{text:?} prints as {printed:?}, which is refused: {error}"),
        }
    }
    if let Ok(problems) = Problem::parse_file(text) {
        assert!(problems.len() <= text.lines().count());
    }
});
