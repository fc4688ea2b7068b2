//! Places at the disk where a test has an operation fail, or the program end. Outside
//! of tests nothing happens there.

use std::io;

/// Passes such a place, before or after what is done there.
///
/// # Errors
///
/// Fails if a test says so.
#[cfg(not(test))]
pub fn pass(_place: &'static str) -> io::Result<()> {
    Ok(())
}

/// As outside of tests, and does what [`set`] has set.
#[cfg(test)]
pub fn pass(place: &'static str) -> io::Result<()> {
    let hook = HOOK.with_borrow_mut(Option::take);
    let Some(mut hook) = hook else {
        return Ok(());
    };
    let result = hook(place);
    HOOK.set(Some(hook));
    result
}

/// What a test has happen.
#[cfg(test)]
pub type Hook = Box<dyn FnMut(&'static str) -> io::Result<()>>;

#[cfg(test)]
thread_local! {
    static HOOK: std::cell::RefCell<Option<Hook>> = const { std::cell::RefCell::new(None) };
}

/// Sets what happens at these places on this thread.
#[cfg(test)]
pub fn set(hook: Option<Hook>) {
    HOOK.set(hook);
}
