//! Files of the state directory as downloads.

use std::path::Path;

use axum::http::{HeaderMap, header};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::disposition::attachment;
use super::error::{HttpError, Result};
use super::range::{Wanted, describe, tag, wanted};
use super::stream::stream;
use crate::model::Product;
use crate::os::file::open_regular;

/// Sends a file of the state directory as a download. Browsers never show it as a page, because a build made it.
///
/// # Errors
/// 404: the file is gone, cannot be read, or has another length than was stored. 416: the range begins past the end.
pub(crate) async fn file(path: &Path, product: &Product, headers: &HeaderMap) -> Result<Response> {
    let bytes = u64::try_from(product.bytes).unwrap_or(0);
    let wanted_path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let file = open_regular(&wanted_path)?;
        Ok((file.metadata()?.len(), file))
    });
    let opened = opened.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let (found, opened) = opened.map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => HttpError::not_found("the file is not kept any more"),
        _ => HttpError::unreadable("the product", &error),
    })?;
    if found != bytes {
        let error = format!("it is damaged: it has {found} bytes, and {bytes} were stored");
        return Err(HttpError::unreadable("the product", &std::io::Error::other(error)));
    }
    let mut opened = tokio::fs::File::from_std(opened);
    let tag = tag(&product.checksum);
    let wanted = wanted(headers, bytes, &tag)?;
    let part = match &wanted {
        Wanted::Whole => 0..bytes,
        Wanted::Part(part) => part.clone(),
        Wanted::Nothing => 0..0,
    };
    let moved = opened.seek(std::io::SeekFrom::Start(part.start)).await;
    moved.map_err(|error| HttpError::unreadable("the product", &error))?;
    let mut source = opened.take(part.end - part.start);
    let mut response = stream("application/octet-stream", move |sender| async move {
        loop {
            let mut piece = Vec::with_capacity(64 * 1024);
            match source.read_buf(&mut piece).await {
                Ok(0) => return,
                Ok(_) => {
                    if !sender.send(piece).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a product cannot be read to its end");
                    return sender.fail(error).await;
                }
            }
        }
    });
    response.headers_mut().insert(header::CONTENT_DISPOSITION, attachment(&product.name));
    describe(&mut response, &wanted, bytes, tag);
    Ok(response)
}
