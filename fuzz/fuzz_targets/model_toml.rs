//! Models in TOML: whatever parses prints as TOML that parses to the same model; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rectify::model::Model;

fuzz_target!(|text: &str| {
    let Ok(model) = Model::parse(text) else { return };
    let Ok(printed) = model.to_toml() else { return };
    match Model::parse(&printed) {
        Ok(again) => assert_eq!(again, model, "{printed}"),
        Err(error) => panic!("{text:?} prints as {printed}, which is refused: {error}"),
    }
});
