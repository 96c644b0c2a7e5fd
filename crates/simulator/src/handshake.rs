//! The server's side of Noise: XX for a client that knows nothing, IK for one that remembers the
//! server's key, XXfallback for one that remembers a wrong key.

use anyhow::{Context as _, Result, ensure};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use wacore_binary::consts::{
    NOISE_PATTERN_IK, NOISE_PATTERN_XX, NOISE_PATTERN_XXFALLBACK, WA_CONN_HEADER,
};
use wacore_libsignal::protocol::{KeyPair, PrivateKey};
use wacore_noise::{NoiseCipher, NoiseHandshake};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::cert_chain::{NoiseCertificate, noise_certificate};
use waproto::whatsapp::handshake_message::{ClientHello, ServerHello};
use waproto::whatsapp::{CertChain, ClientPayload, HandshakeMessage};

use crate::base64_bytes;

/// Who the server is. Clients remember the key (IK), so it must outlive a restart.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServerIdentity {
    #[serde(with = "base64_bytes")]
    private_key: [u8; 32],
    #[serde(with = "base64_bytes")]
    public_key: [u8; 32],
    #[serde(with = "base64_bytes")]
    certificates: Vec<u8>,
    /// The key that signed the chain, for clients whose trust anchor can be set.
    #[serde(with = "base64_bytes")]
    pub(crate) root_key: [u8; 32],
}

impl ServerIdentity {
    /// Fresh keys, and a chain of certificates that is truly signed: root, intermediate, leaf.
    pub(crate) fn generate(now: u64) -> Result<Self> {
        const YEAR: u64 = 365 * 86_400;
        let mut random = rand::rng();
        let root = KeyPair::generate(&mut random);
        let intermediate = KeyPair::generate(&mut random);
        let server = KeyPair::generate(&mut random);
        let mut certify = |issuer: &KeyPair, subject: &KeyPair, serial: u32| -> Result<_> {
            let details = noise_certificate::Details {
                serial: Some(serial),
                issuer_serial: Some(serial - 1),
                key: Some(subject.public_key.public_key_bytes().to_vec()),
                not_before: Some(now - YEAR),
                not_after: Some(now + 20 * YEAR),
            }
            .encode_to_vec();
            let signature = issuer.calculate_signature(&details, &mut random)?;
            Ok(MessageField::some(NoiseCertificate {
                details: Some(details),
                signature: Some(signature.to_vec()),
            }))
        };
        let chain = CertChain {
            intermediate: certify(&root, &intermediate, 1)?,
            leaf: certify(&intermediate, &server, 2)?,
        };
        Ok(Self {
            private_key: *server.private_key.serialize(),
            public_key: key_bytes(&server)?,
            certificates: chain.encode_to_vec(),
            root_key: key_bytes(&root)?,
        })
    }
}

fn key_bytes(pair: &KeyPair) -> Result<[u8; 32]> {
    Ok(pair.public_key.public_key_bytes().try_into()?)
}

/// Takes the connection header off the front. `None`: more bytes are needed.
pub(crate) fn take_header(buffer: &mut BytesMut) -> Result<Option<()>> {
    if buffer.starts_with(b"ED") {
        if buffer.len() < 7 {
            return Ok(None);
        }
        let routing = u32::from_be_bytes([0, buffer[4], buffer[5], buffer[6]]) as usize;
        if buffer.len() < 7 + routing + WA_CONN_HEADER.len() {
            return Ok(None);
        }
        let _ = buffer.split_to(7 + routing);
    } else if buffer.len() < WA_CONN_HEADER.len() {
        return Ok(None);
    }
    let header = buffer.split_to(WA_CONN_HEADER.len());
    ensure!(
        header[..2] == WA_CONN_HEADER[..2],
        "the connection does not begin with WA"
    );
    ensure!(
        header[..] == WA_CONN_HEADER,
        "protocol version {}.{} is not spoken here",
        header[2],
        header[3]
    );
    Ok(Some(()))
}

/// What both sides agreed on.
pub(crate) struct Agreement {
    pub(crate) payload: ClientPayload,
    pub(crate) client_key: [u8; 32],
    pub(crate) from_client: NoiseCipher,
    pub(crate) to_client: NoiseCipher,
}

/// The answer to a ClientHello, to be sent as one frame.
pub(crate) enum Answer {
    /// IK: the client has said everything.
    Complete(Vec<u8>, Box<Agreement>),
    /// XX: its ClientFinish is still to come.
    AwaitFinish(Vec<u8>, AwaitFinish),
}

pub(crate) struct AwaitFinish {
    noise: NoiseHandshake,
    ephemeral: PrivateKey,
}

/// Answers the client's first frame.
pub(crate) fn answer(identity: &ServerIdentity, hello: &[u8]) -> Result<Answer> {
    let hello = HandshakeMessage::decode_from_slice(hello)?
        .client_hello
        .into_option()
        .context("the first frame is no ClientHello")?;
    let client_ephemeral = key(hello.ephemeral.as_deref(), "the client's ephemeral key")?;
    if hello.r#static.is_none() {
        return answer_xx(identity, NOISE_PATTERN_XX, &client_ephemeral);
    }
    match answer_ik(identity, &hello, &client_ephemeral) {
        Ok(answer) => Ok(answer),
        // It was encrypted for a key that this server doesn't have (any more).
        Err(_) => answer_xx(identity, NOISE_PATTERN_XXFALLBACK, &client_ephemeral),
    }
}

fn answer_ik(
    identity: &ServerIdentity,
    hello: &ClientHello,
    client_ephemeral: &[u8; 32],
) -> Result<Answer> {
    let sealed_static = hello.r#static.as_deref().context("no static key")?;
    let sealed_payload = hello.payload.as_deref().context("no payload")?;
    let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER)?;
    noise.authenticate(&identity.public_key);
    noise.authenticate(client_ephemeral);
    noise.mix_shared_secret(&identity.private_key, client_ephemeral)?;
    let client_key = key(Some(&noise.decrypt(sealed_static)?), "the client's key")?;
    noise.mix_shared_secret(&identity.private_key, &client_key)?;
    let payload = noise.decrypt(sealed_payload)?;

    let ephemeral = KeyPair::generate(&mut rand::rng());
    let public = key_bytes(&ephemeral)?;
    noise.authenticate(&public);
    noise.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)?;
    noise.mix_shared_secret(ephemeral.private_key.serialize(), &client_key)?;
    let certificates = noise.encrypt(&identity.certificates)?;
    let reply = server_hello(&public, None, certificates);
    Ok(Answer::Complete(
        reply,
        Box::new(agree(noise, &payload, client_key)?),
    ))
}

fn answer_xx(
    identity: &ServerIdentity,
    pattern: &str,
    client_ephemeral: &[u8; 32],
) -> Result<Answer> {
    let mut noise = NoiseHandshake::new(pattern, &WA_CONN_HEADER)?;
    noise.authenticate(client_ephemeral);
    let ephemeral = KeyPair::generate(&mut rand::rng());
    let public = key_bytes(&ephemeral)?;
    noise.authenticate(&public);
    noise.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)?;
    let sealed_static = noise.encrypt(&identity.public_key)?;
    noise.mix_shared_secret(&identity.private_key, client_ephemeral)?;
    let certificates = noise.encrypt(&identity.certificates)?;
    let reply = server_hello(&public, Some(sealed_static), certificates);
    Ok(Answer::AwaitFinish(
        reply,
        AwaitFinish {
            noise,
            ephemeral: ephemeral.private_key,
        },
    ))
}

impl AwaitFinish {
    /// Takes the client's second frame.
    pub(crate) fn finish(mut self, finish: &[u8]) -> Result<Agreement> {
        let finish = HandshakeMessage::decode_from_slice(finish)?
            .client_finish
            .into_option()
            .context("the second frame is no ClientFinish")?;
        let sealed_static = finish.r#static.context("no static key")?;
        let client_key = key(
            Some(&self.noise.decrypt(&sealed_static)?),
            "the client's key",
        )?;
        self.noise
            .mix_shared_secret(self.ephemeral.serialize(), &client_key)?;
        let payload = self.noise.decrypt(&finish.payload.context("no payload")?)?;
        agree(self.noise, &payload, client_key)
    }
}

fn agree(noise: NoiseHandshake, payload: &[u8], client_key: [u8; 32]) -> Result<Agreement> {
    // The initiator's write key is the server's read key.
    let (from_client, to_client) = noise.finish()?;
    Ok(Agreement {
        payload: ClientPayload::decode_from_slice(payload)?,
        client_key,
        from_client,
        to_client,
    })
}

fn server_hello(ephemeral: &[u8], sealed_static: Option<Vec<u8>>, payload: Vec<u8>) -> Vec<u8> {
    HandshakeMessage {
        server_hello: MessageField::some(ServerHello {
            ephemeral: Some(ephemeral.to_vec()),
            r#static: sealed_static,
            payload: Some(payload),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

fn key(bytes: Option<&[u8]>, what: &str) -> Result<[u8; 32]> {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .with_context(|| format!("{what} is missing or has a wrong length"))
}

#[cfg(test)]
mod tests {
    use wacore_noise::{
        HandshakeUtils, IkHandshakeState, IkServerHelloOutcome, XxFallbackHandshakeState,
        XxHandshakeState,
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn payload() -> Vec<u8> {
        let payload = ClientPayload {
            username: Some(5_511_900_000_001),
            ..Default::default()
        };
        payload.encode_to_vec()
    }

    #[test]
    fn a_client_that_knows_nothing_agrees_by_xx_and_learns_the_key() {
        let identity = ServerIdentity::generate(NOW).unwrap();
        let client = KeyPair::generate(&mut rand::rng());
        let mut xx = XxHandshakeState::new(client.clone(), payload(), &WA_CONN_HEADER).unwrap();
        let Answer::AwaitFinish(reply, rest) =
            answer(&identity, &xx.build_client_hello().unwrap()).unwrap()
        else {
            panic!("XX takes two frames");
        };
        let finish = xx
            .read_server_hello_and_build_client_finish(&reply)
            .unwrap();
        let agreement = rest.finish(&finish).unwrap();
        assert_eq!(agreement.client_key, key_bytes(&client).unwrap());
        assert_eq!(agreement.payload.username, Some(5_511_900_000_001));
        let learnt = xx.finish().unwrap().server_cert_chain;
        assert_eq!(learnt.leaf_key, identity.public_key);
    }

    #[test]
    fn a_client_that_knows_the_key_agrees_by_ik_in_one_frame() {
        let identity = ServerIdentity::generate(NOW).unwrap();
        let client = KeyPair::generate(&mut rand::rng());
        let mut ik =
            IkHandshakeState::new(client, identity.public_key, payload(), &WA_CONN_HEADER).unwrap();
        let Answer::Complete(reply, agreement) =
            answer(&identity, &ik.build_client_hello().unwrap()).unwrap()
        else {
            panic!("IK takes one frame");
        };
        assert!(agreement.payload.username.is_some());
        assert!(matches!(
            ik.read_server_hello(&reply).unwrap(),
            IkServerHelloOutcome::Continue(_)
        ));
    }

    #[test]
    fn a_client_with_another_servers_key_falls_back_and_agrees() {
        let identity = ServerIdentity::generate(NOW).unwrap();
        let other = ServerIdentity::generate(NOW).unwrap();
        let client = KeyPair::generate(&mut rand::rng());
        let mut ik =
            IkHandshakeState::new(client, other.public_key, payload(), &WA_CONN_HEADER).unwrap();
        let Answer::AwaitFinish(reply, rest) =
            answer(&identity, &ik.build_client_hello().unwrap()).unwrap()
        else {
            panic!("a fallback takes two frames");
        };
        let IkServerHelloOutcome::Fallback(inputs) = ik.read_server_hello(&reply).unwrap() else {
            panic!("the client must be told to fall back");
        };
        let mut fallback =
            XxFallbackHandshakeState::from_ik_failure(*inputs, &WA_CONN_HEADER).unwrap();
        let finish = fallback.build_client_finish().unwrap();
        assert!(rest.finish(&finish).unwrap().payload.username.is_some());
        fallback.finish().unwrap();
    }

    #[test]
    fn every_certificate_is_signed_by_the_one_above_it() {
        let identity = ServerIdentity::generate(NOW).unwrap();
        let chain = CertChain::decode_from_slice(&identity.certificates).unwrap();
        let verify = |issuer: &[u8], certificate: &NoiseCertificate| {
            let issuer =
                wacore_libsignal::protocol::PublicKey::from_djb_public_key_bytes(issuer).unwrap();
            let details = certificate.details.as_deref().unwrap();
            issuer.verify_signature(details, certificate.signature.as_deref().unwrap())
        };
        assert!(verify(&identity.root_key, &chain.intermediate));
        let intermediate = noise_certificate::Details::decode_from_slice(
            chain.intermediate.details.as_deref().unwrap(),
        )
        .unwrap();
        assert!(verify(&intermediate.key.unwrap(), &chain.leaf));
        assert!(HandshakeUtils::verify_server_cert(&identity.certificates, &[0; 32]).is_err());
    }

    #[test]
    fn routing_information_before_the_header_is_skipped() {
        let mut buffer = BytesMut::from(&b"ED\x00\x01\x00\x00\x02ab"[..]);
        assert!(take_header(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&WA_CONN_HEADER);
        buffer.extend_from_slice(b"rest");
        assert!(take_header(&mut buffer).unwrap().is_some());
        assert_eq!(&buffer[..], b"rest");
        assert!(take_header(&mut BytesMut::from(&b"GET / HTTP"[..])).is_err());
    }
}
