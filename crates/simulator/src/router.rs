//! Messages from a linked device: to contacts' phones, which decrypt them, and to other linked
//! devices, which get them forwarded.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, NodeRef};
use waproto::buffa::Message as _;
use waproto::whatsapp::Message;

mod mail;

use mail::{Enc, Mail, kinds};

use crate::account::Account;
use crate::journal::Batch;
use crate::ledger::rfc3339;
use crate::offline::{Origin, Waiting};
use crate::outbox::{Sent, text_of};
use crate::receipts::Request;
use crate::session::Member;
use crate::stanza::encode;
use crate::world::{unix_millis, unix_time};

pub(crate) fn route(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let kinds = kinds(node);
    let mail = Mail::read(&member.world, node, &kinds)?;
    let mut batch = Batch::default();
    let recipients = mail.recipients(member)?;
    let mut readers = Vec::new();
    for account in &recipients {
        let sender = member.account.phone.as_str();
        if mail.is_for(member, account) && member.world.faults.take_unread(sender) {
            ask_again(member, &mail, account)?;
            continue;
        }
        let read = mail.read_by(member, account, &mut batch);
        match read {
            Ok(Some(content)) => readers.push((account.clone(), content)),
            Ok(None) => {}
            Err(error) => {
                member.world.stats.outbox_undecryptable.add();
                tracing::warn!(
                    id = mail.id,
                    to = account.phone,
                    "the phone cannot decrypt it: {error:#}"
                );
                ask_again(member, &mail, account)?;
            }
        }
    }
    if let Some((reader, content)) = readers.first() {
        let sent = mail.sent(member, reader, content);
        member.world.stats.outbox_messages.add();
        member.world.outbox.add(sent, &mut batch);
    }
    let position = member.world.journal.commit(batch);
    let forwarded = mail.forward(member, &recipients);
    let ack = NodeBuilder::new("ack")
        .attr("class", "message")
        .attr("id", mail.id.as_str())
        .attr("from", mail.to.clone())
        .attr("t", unix_time())
        .build();
    member.acknowledge(ack, position.max(forwarded));
    for (reader, _) in &readers {
        let receipt = mail.delivered_to(reader);
        for device in member.account.devices() {
            device.post(&member.world, &receipt);
        }
    }
    Ok(())
}

impl Mail<'_> {
    /// Every number concerned, the sender's own among them.
    fn recipients(&self, member: &Member) -> Result<Vec<Arc<Account>>> {
        let mut accounts = BTreeMap::new();
        if let Some(group) = &self.group {
            ensure!(
                group.has(&member.account.phone),
                "a group that it is not in"
            );
            for phone in &group.members {
                accounts.insert(phone.clone(), member.world.account(phone)?);
            }
        }
        for (jid, _) in &self.direct {
            let account = member.world.resolve(jid)?;
            accounts.insert(account.phone.clone(), account);
        }
        Ok(accounts.into_values().collect())
    }

    /// Whether that account's phone is one of those who shall read it.
    fn is_for(&self, member: &Member, account: &Account) -> bool {
        let own = account.phone == member.account.phone && self.to.user != account.phone;
        !own && (self.for_all.is_some() || self.enc_for(member, account, 0).is_some())
    }

    fn enc_for(&self, member: &Member, account: &Account, device: u16) -> Option<Enc<'_>> {
        let mine = |jid: &Jid| {
            let same = jid.device == device;
            same && member
                .world
                .resolve(jid)
                .is_ok_and(|to| to.phone == account.phone)
        };
        let found = self.direct.iter().find(|(jid, _)| mine(jid));
        found.map(|(_, enc)| *enc)
    }

    /// What the account's phone reads; `None` for the sender's own phone, which only keeps its
    /// ratchet in step, and for one that the message isn't for.
    fn read_by(
        &self,
        member: &Member,
        account: &Account,
        batch: &mut Batch,
    ) -> Result<Option<Vec<u8>>> {
        let from = member.account.address(member.device.id);
        let mut handset = account.handset();
        let mut content = None;
        if let Some(enc) = self.enc_for(member, account, 0) {
            let bytes = handset.decrypt(&from, enc.kind, enc.bytes, batch)?;
            let message = Message::decode_from_slice(&bytes).unwrap_or_default();
            if let Some(id) = self.group_id()
                && let Some(key) = message
                    .sender_key_distribution_message
                    .axolotl_sender_key_distribution_message
                    .as_deref()
            {
                handset.learn_sender_key(id, &from, key, batch)?;
                // Who has asked for it again gets both at once.
                content = Some(bytes).filter(|_| self.again);
            } else {
                content = Some(bytes);
            }
        }
        if let (Some(id), Some(enc)) = (self.group_id(), self.for_all) {
            content = Some(handset.group_decrypt(id, &from, enc.bytes, batch)?);
        }
        let own = account.phone == member.account.phone && self.to.user != account.phone;
        Ok(content.filter(|_| !own))
    }

    fn sent(&self, member: &Member, reader: &Account, content: &[u8]) -> Sent {
        let message = Message::decode_from_slice(content).unwrap_or_default();
        let text = text_of(&message);
        Sent {
            id: self.id.clone(),
            from: member.account.phone.clone(),
            device: member.device.id,
            to: reader.phone.clone(),
            group: self.group_id().map(str::to_owned),
            r#type: if text.is_some() { "text" } else { "other" }.to_owned(),
            text,
            content: content.to_vec(),
            again: self.again,
            sent_at: rfc3339(unix_millis()),
        }
    }

    /// Hands the other linked devices of all concerned what is theirs.
    fn forward(&self, member: &Member, recipients: &[Arc<Account>]) -> u64 {
        let mut last = 0;
        for account in recipients {
            for device in account.devices() {
                let itself = account.phone == member.account.phone && device.id == member.device.id;
                let mut encs: Vec<Enc<'_>> = Vec::new();
                encs.extend(self.enc_for(member, account, device.id));
                encs.extend(self.for_all);
                if itself || encs.is_empty() {
                    continue;
                }
                let waiting = Waiting {
                    id: self.id.clone(),
                    stanza: encode(&self.envelope(member, account, &encs)).to_vec(),
                    ledger: None,
                    origin: Origin::Device {
                        phone: member.account.phone.clone(),
                        device: member.device.id,
                    },
                    parked: false,
                    resent: false,
                };
                let mut batch = Batch::default();
                let mut state = device.lock();
                device.enqueue(&mut state, waiting, &mut batch);
                last = member.world.journal.commit(batch);
                device.put_on_wire(&state, &self.id, last);
            }
        }
        last
    }
}

/// The phone couldn't read it and asks the device to send it again.
fn ask_again(member: &Member, mail: &Mail<'_>, account: &Account) -> Result<()> {
    let request = Request {
        id: &mail.id,
        count: 1,
        keys: false,
    };
    let receipt = request.stanza(&member.world, account, mail.receipt_from(account))?;
    member.device.post(&member.world, &receipt);
    Ok(())
}
