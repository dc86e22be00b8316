//! Closures that stay on their caller's stack while another thread runs them.

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::gate::Gate;

/// The argument of a closure, as a type with a lifetime.
pub(crate) trait View: 'static {
    type Ref<'v>;
}

/// A closure on the stack of a thread that waits in [`lend`]; for other threads.
pub(crate) struct Borrowed<V: View, E> {
    gate: Arc<Gate>,
    closure: NonNull<()>,
    run: for<'v> unsafe fn(NonNull<()>, V::Ref<'v>) -> Result<(), E>,
}

// SAFETY: the closure behind the pointer is `Send`, which `lend` asks for, and the gate lets one thread at a
// time have it.
unsafe impl<V: View, E> Send for Borrowed<V, E> {}

impl<V: View, E> Borrowed<V, E> {
    /// Runs the closure.
    ///
    /// # Panics
    /// If the thread that lent it does not wait any more: no call runs after it was answered.
    pub(crate) fn run(&self, view: V::Ref<'_>) -> Result<(), E> {
        let _inside = self.gate.enter().expect("a call runs only while its caller waits for it");
        // SAFETY: `run` was made for the type of this closure. `lend` keeps the closure in its place until the gate is
        // closed, which waits until no thread is inside; we are inside, and the gate lets no other thread in.
        unsafe { (self.run)(self.closure, view) }
    }
}

/// The type `T`, lifetimes aside.
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

/// Calls `wait` with `f`, which it may run on any thread and several times until it returns. Returns the value of the last
/// run.
///
/// Neither `f` nor its value need outlive this call: when `wait` returns or panics, this waits for a run that is under
/// way, and no run begins afterwards. If `wait` returns `Ok`, it has run `f`.
pub(crate) fn lend<V: View, T: Send, E, R>(
    mut f: impl for<'v> FnMut(V::Ref<'v>) -> Result<T, E> + Send,
    wait: impl FnOnce(Borrowed<V, E>) -> Result<(), R>,
) -> Result<T, R> {
    let mut value = None;
    lend_closure::<V, E, _, _>(
        |view: V::Ref<'_>| {
            // The value of an earlier run, which was undone.
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
        // SAFETY: the caller guarantees it.
        (unsafe { closure.cast::<F>().as_mut() })(view)
    }

    let closure = NonNull::from(&mut closure).cast();
    // From here on only `run` touches the closure. The parameter is dropped after this guard.
    let close = Close(Arc::new(Gate::new()));
    wait(Borrowed { gate: Arc::clone(&close.0), closure, run: run::<V, E, F> })
}
