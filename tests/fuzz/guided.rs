//! libFuzzer's way to the properties: `PGPAIR_FUZZ_PROPERTY` names one.

#![no_main]
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

mod properties;

static PROPERTY: LazyLock<properties::Property> = LazyLock::new(|| {
    let name = std::env::var("PGPAIR_FUZZ_PROPERTY");
    properties::named(&name.expect("PGPAIR_FUZZ_PROPERTY names the property"))
});

fuzz_target!(|bytes: &[u8]| PROPERTY(bytes));
