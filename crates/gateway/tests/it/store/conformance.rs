//! One suite over both backends: whatever passes over the library's own is what the library expects.

mod app_sync;
mod device;
mod protocol;
mod secrets;
mod signal;

/// Runs each function over the library's backend and over ours.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&whatsapp_rust::wacore::store::InMemoryBackend::new()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let world = crate::store::world::World::new().await;
                super::$name(&world.store().await).await;
            })+
        }
    };
}
use over_both;
