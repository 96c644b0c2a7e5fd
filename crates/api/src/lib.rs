//! The public HTTP API, and the commands by which an operator administers Recado.

pub mod admin;
pub mod app;
pub mod config;
pub mod openapi;

// a request's way: access, limits, routes, auth, once, extract, handlers, and error where it ends early
mod access;
mod auth;
mod error;
mod extract;
mod handlers;
mod limits;
mod once;
mod routes;

// what handlers stand on
mod address;
mod cursor;
mod database;
mod disposition;
mod gateway;
mod media;
mod options;
mod page;
mod qr;
mod state;
mod streams;
mod wait;

#[cfg(test)]
mod fuzz;
