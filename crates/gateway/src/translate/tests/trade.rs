//! Invitations, goods, money.

use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

#[test]
fn invitations_to_a_group_a_community_and_a_channel() {
    let group = |kind| proto::GroupInviteMessage {
        group_jid: some("120363021033254949@g.us"),
        group_name: some("Family"),
        invite_code: some("AbCd"),
        invite_expiration: Some(1_764_000_000),
        group_type: Some(kind),
        ..Default::default()
    };
    let channel = proto::NewsletterFollowerInviteMessage {
        newsletter_jid: some("120363000000000001@newsletter"),
        newsletter_name: some("News"),
        caption: some("follow us"),
        ..Default::default()
    };
    use proto::group_invite_message::GroupType;
    let (own, parent) = (group(GroupType::DEFAULT), group(GroupType::PARENT));
    let all = [
        content(&holds!(group_invite_message: own)),
        content(&holds!(group_invite_message: parent)),
        content(&holds!(newsletter_follower_invite_message_v2: channel)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Family",
        "metadata": {
          "invite": {
            "chat": "120363021033254949@g.us",
            "code": "AbCd",
            "expires_at": "2025-11-24T16:00:00.000Z",
            "kind": "group",
            "name": "Family"
          }
        },
        "type": "invite"
      },
      {
        "content": "Family",
        "metadata": {
          "invite": {
            "chat": "120363021033254949@g.us",
            "code": "AbCd",
            "expires_at": "2025-11-24T16:00:00.000Z",
            "kind": "community",
            "name": "Family"
          }
        },
        "type": "invite"
      },
      {
        "content": "follow us",
        "metadata": {
          "invite": {
            "chat": "120363000000000001@newsletter",
            "kind": "newsletter",
            "name": "News"
          }
        },
        "type": "invite"
      }
    ]
    "#);
}

#[test]
fn a_product_an_order_and_a_request_for_money() {
    let product = proto::ProductMessage {
        product: MessageField::some(proto::product_message::ProductSnapshot {
            product_id: some("p1"),
            title: some("Lamp"),
            currency_code: some("BRL"),
            price_amount1000: Some(99_900),
            ..Default::default()
        }),
        business_owner_jid: some("5511888888888@s.whatsapp.net"),
        ..Default::default()
    };
    let order = proto::OrderMessage {
        order_id: some("o1"),
        item_count: Some(2),
        status: Some(proto::order_message::OrderStatus::INQUIRY),
        message: some("two lamps please"),
        token: some("secret-token"),
        total_amount1000: Some(199_800),
        total_currency_code: some("BRL"),
        ..Default::default()
    };
    let request = proto::RequestPaymentMessage {
        note_message: MessageField::some(says("for the lamps")),
        currency_code_iso4217: some("BRL"),
        amount1000: Some(199_800),
        request_from: some("5511888888888@s.whatsapp.net"),
        ..Default::default()
    };
    let all = [
        content(&holds!(product_message: product)),
        content(&holds!(order_message: order)),
        content(&holds!(request_payment_message: request)),
    ];
    assert!(!all[1].to_string().contains("secret-token"));
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Lamp",
        "metadata": {
          "product": {
            "id": "p1",
            "price": {
              "amount_1000": 99900,
              "currency": "BRL"
            },
            "seller": "5511888888888",
            "title": "Lamp"
          }
        },
        "type": "product"
      },
      {
        "content": "two lamps please",
        "metadata": {
          "order": {
            "id": "o1",
            "item_count": 2,
            "status": "inquiry",
            "total": {
              "amount_1000": 199800,
              "currency": "BRL"
            }
          }
        },
        "type": "order"
      },
      {
        "content": "for the lamps",
        "metadata": {
          "payment": {
            "amount": {
              "amount_1000": 199800,
              "currency": "BRL"
            },
            "kind": "request",
            "payer": "5511888888888"
          }
        },
        "type": "payment"
      }
    ]
    "#);
}
