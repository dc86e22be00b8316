//! Closures that stay on their caller's stack while another thread runs them.

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::gate::Gate;

/// A type for the argument of a closure, with the lifetime as a parameter.
pub(crate) trait View: 'static {
    type Ref<'v>;
}

/// A pointer, for other threads, to a closure on the stack of a thread that waits in [`lend`].
pub(crate) struct Borrowed<V: View, E> {
    gate: Arc<Gate>,
    closure: NonNull<()>,
    run: for<'v> unsafe fn(NonNull<()>, V::Ref<'v>) -> Result<(), E>,
}

// SAFETY: `lend` requires the closure to be `Send`, and the gate lets only one thread at a time use it.
unsafe impl<V: View, E> Send for Borrowed<V, E> {}

impl<V: View, E> Borrowed<V, E> {
    /// Runs the closure.
    ///
    /// # Panics
    /// If the thread that lent the closure does not wait any more. That cannot happen, because no call runs after it
    /// was answered.
    pub(crate) fn run(&self, view: V::Ref<'_>) -> Result<(), E> {
        let _inside = self.gate.enter().expect("a call runs only while its caller waits for it");
        // SAFETY: `run` was made for the type of this closure. `lend` keeps the closure in its place until the gate is
        // closed, which waits until no thread is inside; we are inside, and the gate lets no other thread in.
        unsafe { (self.run)(self.closure, view) }
    }
}

/// The id of the type `T`; types that differ only in lifetimes have the same id.
pub(crate) fn type_id<T>() -> TypeId {
    trait Ask {
        fn ask(&self) -> TypeId
        where
            Self: 'static;
    }

    impl<T> Ask for PhantomData<T> {
        fn ask(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }

    let kind: &dyn Ask = &PhantomData::<T>;
    // SAFETY: only a lifetime changes; the answer does not depend on it, and `ask` reads nothing of a `T`.
    let kind = unsafe { mem::transmute::<&dyn Ask, &(dyn Ask + 'static)>(kind) };
    kind.ask()
}

/// Calls `wait` with `f`. Until `wait` returns, it may run `f` on any thread and several times. Returns the value of
/// the last run.
///
/// Neither `f` nor its value need outlive this call: when `wait` returns or panics, this function waits for a run that
/// is under way, and no run begins afterwards. If `wait` returns `Ok`, it must have run `f`.
pub(crate) fn lend<V: View, T: Send, E, R>(
    mut f: impl for<'v> FnMut(V::Ref<'v>) -> Result<T, E> + Send,
    wait: impl FnOnce(Borrowed<V, E>) -> Result<(), R>,
) -> Result<T, R> {
    let mut value = None;
    lend_closure::<V, E, _, _>(
        |view: V::Ref<'_>| {
            // Drops the value of an earlier run, which was undone.
            value = None;
            value = Some(f(view)?);
            Ok(())
        },
        wait,
    )?;
    Ok(value.expect("a call that was answered has run"))
}

fn lend_closure<V, E, F, R>(mut closure: F, wait: impl FnOnce(Borrowed<V, E>) -> R) -> R
where
    V: View,
    F: for<'v> FnMut(V::Ref<'v>) -> Result<(), E> + Send,
{
    /// Closes the gate before the closure is dropped, also when `wait` panics.
    struct Close(Arc<Gate>);

    impl Drop for Close {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    /// # Safety
    /// `closure` points to an `F` that nothing else touches meanwhile.
    unsafe fn run<V, E, F>(closure: NonNull<()>, view: V::Ref<'_>) -> Result<(), E>
    where
        V: View,
        F: for<'v> FnMut(V::Ref<'v>) -> Result<(), E>,
    {
        // SAFETY: the caller guarantees that `closure` points to an `F` that nothing else touches.
        (unsafe { closure.cast::<F>().as_mut() })(view)
    }

    let closure = NonNull::from(&mut closure).cast();
    // From here on only `run` touches the closure. The closure is a parameter, so it is dropped after this guard.
    let close = Close(Arc::new(Gate::new()));
    wait(Borrowed { gate: Arc::clone(&close.0), closure, run: run::<V, E, F> })
}
