//! Products and orders.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as proto;

use super::content::{Content, said};
use super::kind;
use super::parties::Parties;

/// An amount in thousandths of a currency's unit.
#[derive(Serialize)]
pub(super) struct Money<'a> {
    amount_1000: i64,
    currency: Option<&'a str>,
}

impl<'a> Money<'a> {
    pub(super) fn of(amount_1000: Option<i64>, currency: &'a Option<String>) -> Option<Self> {
        Some(Self {
            amount_1000: amount_1000?,
            currency: said(currency),
        })
    }
}

#[derive(Serialize)]
struct Product<'a> {
    id: Option<&'a str>,
    retailer_id: Option<&'a str>,
    title: Option<&'a str>,
    description: Option<&'a str>,
    price: Option<Money<'a>>,
    sale_price: Option<Money<'a>>,
    url: Option<&'a str>,
    seller: Option<String>,
}

#[derive(Serialize)]
struct Order<'a> {
    id: Option<&'a str>,
    title: Option<&'a str>,
    item_count: Option<i32>,
    status: Option<String>,
    total: Option<Money<'a>>,
    seller: Option<String>,
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    if let Some(product) = message.product_message.as_option() {
        return Some(of_product(product, parties));
    }
    let order = message.order_message.as_option()?;
    let text = said(&order.message).or(said(&order.order_title));
    let details = Order {
        id: said(&order.order_id),
        title: said(&order.order_title),
        item_count: order.item_count,
        status: order.status.map(kind::word),
        total: Money::of(order.total_amount1000, &order.total_currency_code),
        seller: parties.name(&order.seller_jid),
    };
    Some(Content::new("order", text.unwrap_or_default()).with("order", details))
}

fn of_product<'a>(message: &'a proto::ProductMessage, parties: &Parties<'_>) -> Content<'a> {
    let product = &*message.product;
    let title = said(&product.title).or(said(&message.catalog.title));
    let text = said(&message.body).or(title);
    let details = Product {
        id: said(&product.product_id),
        retailer_id: said(&product.retailer_id),
        title,
        description: said(&product.description).or(said(&message.catalog.description)),
        price: Money::of(product.price_amount1000, &product.currency_code),
        sale_price: Money::of(product.sale_price_amount1000, &product.currency_code),
        url: said(&product.url),
        seller: parties.name(&message.business_owner_jid),
    };
    Content::new("product", text.unwrap_or_default()).with("product", details)
}
