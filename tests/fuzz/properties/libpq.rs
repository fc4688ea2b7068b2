//! libpq itself, as the judge of what its formats mean. It is loaded at run time
//! (Debian's package `libpq5`), so that nothing but these tests needs it.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io::Write;
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `PQconninfoOption` of `libpq-fe.h`; the array ends with a null keyword.
#[repr(C)]
struct ConninfoOption {
    keyword: *const c_char,
    envvar: *const c_char,
    compiled: *const c_char,
    val: *const c_char,
    label: *const c_char,
    dispchar: *const c_char,
    dispsize: c_int,
}

type Connection = *mut c_void;

type Defaults = unsafe extern "C" fn() -> *mut ConninfoOption;
type Parse = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> *mut ConninfoOption;
type FreeOptions = unsafe extern "C" fn(*mut ConninfoOption);
type Free = unsafe extern "C" fn(*mut c_void);
type Start = unsafe extern "C" fn(*const *const c_char, *const *const c_char, c_int) -> Connection;
/// `PQpass` and `PQerrorMessage`: a text that belongs to the connection.
type Text = unsafe extern "C" fn(Connection) -> *const c_char;
type Finish = unsafe extern "C" fn(Connection);

struct Libpq {
    defaults: Defaults,
    parse: Parse,
    free_options: FreeOptions,
    free: Free,
    start: Start,
    password: Text,
    message: Text,
    finish: Finish,
}

fn libpq() -> &'static Libpq {
    static LIBPQ: OnceLock<Libpq> = OnceLock::new();
    LIBPQ.get_or_init(|| {
        // SAFETY: a plain library whose initialisers do nothing to this process.
        let library = unsafe { libc::dlopen(c"libpq.so.5".as_ptr(), libc::RTLD_NOW) };
        assert!(
            !library.is_null(),
            "these tests need libpq: install the package libpq5"
        );
        let symbol = |name: &CStr| {
            // SAFETY: the library is open and stays so.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!found.is_null(), "libpq has no {name:?}");
            found
        };
        // SAFETY: the types are those that `libpq-fe.h` declares.
        unsafe {
            Libpq {
                defaults: mem::transmute::<*mut c_void, Defaults>(symbol(c"PQconndefaults")),
                parse: mem::transmute::<*mut c_void, Parse>(symbol(c"PQconninfoParse")),
                free_options: mem::transmute::<*mut c_void, FreeOptions>(symbol(c"PQconninfoFree")),
                free: mem::transmute::<*mut c_void, Free>(symbol(c"PQfreemem")),
                start: mem::transmute::<*mut c_void, Start>(symbol(c"PQconnectStartParams")),
                password: mem::transmute::<*mut c_void, Text>(symbol(c"PQpass")),
                message: mem::transmute::<*mut c_void, Text>(symbol(c"PQerrorMessage")),
                finish: mem::transmute::<*mut c_void, Finish>(symbol(c"PQfinish")),
            }
        }
    })
}

/// Parses a connection string without a zero byte: what it gives and libpq knows,
/// by name; `None` if libpq refuses it.
pub fn parse(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    all(text).map(|options| {
        let given = options.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    })
}

/// Returns every parameter that libpq knows, and its variable.
pub fn known() -> Vec<(String, Option<String>)> {
    // SAFETY: the array ends with a null keyword; the texts live until it is freed.
    unsafe {
        let options = (libpq().defaults)();
        assert!(!options.is_null(), "out of memory");
        let text = |it: *const c_char| CStr::from_ptr(it).to_str().expect("ASCII").to_owned();
        let mut found = Vec::new();
        let mut at = options;
        while !(*at).keyword.is_null() {
            let variable = (!(*at).envvar.is_null()).then(|| text((*at).envvar));
            found.push((text((*at).keyword), variable));
            at = at.add(1);
        }
        (libpq().free_options)(options);
        found
    }
}

/// Says whether libpq knows a parameter of this name.
pub fn knows(name: &str) -> bool {
    all("")
        .expect("nothing is fine")
        .iter()
        .any(|(known, _)| known == name)
}

fn all(text: &str) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let text = CString::new(text).expect("no zero byte");
    let mut message = ptr::null_mut();
    // SAFETY: both pointers are valid for the call.
    let options = unsafe { (libpq().parse)(text.as_ptr(), &raw mut message) };
    // SAFETY: null, or memory of libpq's that it hands over.
    unsafe { (libpq().free)(message.cast()) };
    if options.is_null() {
        return None;
    }
    let mut found = Vec::new();
    let mut at = options;
    // SAFETY: the array ends with a null keyword; keywords and values are texts
    // that live until the array is freed, which is after they were copied.
    unsafe {
        while !(*at).keyword.is_null() {
            let value = (*at).val;
            let value = (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes().to_vec());
            let keyword = CStr::from_ptr((*at).keyword).to_str().expect("ASCII");
            found.push((keyword.to_owned(), value));
            at = at.add(1);
        }
        (libpq().free_options)(options);
    }
    Some(found)
}

/// Returns the password that libpq would log in with, empty if it finds none. It
/// begins to connect and gives up at once.
pub fn password(parameters: &[(&str, &str)]) -> Vec<u8> {
    ask(parameters, libpq().password)
}

/// Says whether libpq knows this `sslmode`.
pub fn knows_sslmode(mode: &str) -> bool {
    // Nobody is asked: the mode is looked at before.
    let message = ask(
        &[("hostaddr", "127.0.0.1"), ("user", "u"), ("sslmode", mode)],
        libpq().message,
    );
    !String::from_utf8_lossy(&message).contains("invalid sslmode value")
}

fn ask(parameters: &[(&str, &str)], what: Text) -> Vec<u8> {
    let text = |it: &str| CString::new(it).expect("no zero byte");
    let names: Vec<CString> = parameters.iter().map(|(name, _)| text(name)).collect();
    let values: Vec<CString> = parameters.iter().map(|(_, value)| text(value)).collect();
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        let all = texts.iter().map(|it| it.as_ptr());
        all.chain([ptr::null()]).collect()
    };
    let (names, values) = (pointers(&names), pointers(&values));
    // SAFETY: both arrays end with null and outlive the call, as do their texts;
    // the answer belongs to the connection, and is copied before that ends.
    unsafe {
        let connection = (libpq().start)(names.as_ptr(), values.as_ptr(), 0);
        assert!(!connection.is_null(), "out of memory");
        let answer = CStr::from_ptr(what(connection)).to_bytes().to_vec();
        (libpq().finish)(connection);
        answer
    }
}

/// Runs with a file of mode 0600 that holds this, and takes it away.
pub fn with_file<T>(content: &[u8], run: impl FnOnce(&Path) -> T) -> T {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("pgpair-fuzz-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut open = File::options();
    let file = open.write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(content));
    written.unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let result = run(&path);
    fs::remove_file(&path).expect("it is ours");
    result
}
