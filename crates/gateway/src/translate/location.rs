//! Places.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as proto;

use super::content::{Content, said};

#[derive(Serialize, Default)]
pub(super) struct Location<'a> {
    latitude: Option<f64>,
    longitude: Option<f64>,
    name: Option<&'a str>,
    address: Option<&'a str>,
    url: Option<&'a str>,
    /// It goes on being shared, in messages of its own.
    live: Option<bool>,
    accuracy_meters: Option<u32>,
    speed_mps: Option<f64>,
    /// Clockwise from north.
    heading_degrees: Option<u32>,
    sequence: Option<i64>,
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(place) = message.location_message.as_option() {
        let texts = [&place.name, &place.address, &place.comment];
        let text = texts.into_iter().find_map(said).unwrap_or_default();
        return Some(Content::new("location", text).with("location", location(place)));
    }
    let live = message.live_location_message.as_option()?;
    let location = Location {
        latitude: within(live.degrees_latitude, 90.0),
        longitude: within(live.degrees_longitude, 180.0),
        live: Some(true),
        accuracy_meters: live.accuracy_in_meters,
        speed_mps: speed(live.speed_in_mps),
        heading_degrees: live.degrees_clockwise_from_magnetic_north,
        sequence: live.sequence_number,
        ..Location::default()
    };
    let text = said(&live.caption).unwrap_or_default();
    Some(Content::new("location", text).with("location", location))
}

pub(super) fn location(place: &proto::LocationMessage) -> Location<'_> {
    Location {
        latitude: within(place.degrees_latitude, 90.0),
        longitude: within(place.degrees_longitude, 180.0),
        name: said(&place.name),
        address: said(&place.address),
        url: said(&place.url),
        live: super::content::flag(place.is_live),
        accuracy_meters: place.accuracy_in_meters,
        speed_mps: speed(place.speed_in_mps),
        heading_degrees: place.degrees_clockwise_from_magnetic_north,
        sequence: None,
    }
}

/// A coordinate, if it is one: a stranger may send any number, or none.
fn within(degrees: Option<f64>, limit: f64) -> Option<f64> {
    degrees.filter(|degrees| degrees.abs() <= limit)
}

fn speed(mps: Option<f32>) -> Option<f64> {
    mps.filter(|mps| mps.is_finite() && *mps >= 0.0)
        .map(f64::from)
}
