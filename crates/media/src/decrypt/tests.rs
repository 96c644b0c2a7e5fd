use aes::cipher::BlockModeEncrypt;
use domain::media::Kind;

use super::*;

/// A file as its sender encrypts it, written down anew: what it says, and what the media host has.
fn encrypted(content: &[u8], kind: Kind) -> (File, Vec<u8>) {
    let media_key = [7; 32];
    let mut keys = [0; 112];
    Hkdf::<Sha256>::new(None, &media_key)
        .expand(kind.key_info().as_bytes(), &mut keys)
        .unwrap();
    let padding = BLOCK - content.len() % BLOCK;
    let mut stored = content.to_vec();
    stored.extend(std::iter::repeat_n(padding as u8, padding));
    let mut cipher = cbc::Encryptor::<Aes256>::new_from_slices(&keys[16..48], &keys[..16]).unwrap();
    let (blocks, _) = Array::slice_as_chunks_mut(stored.as_mut_slice());
    cipher.encrypt_blocks(blocks);
    let mut mac = Hmac::<Sha256>::new_from_slice(&keys[48..80]).unwrap();
    mac.update(&keys[..16]);
    mac.update(&stored);
    stored.extend_from_slice(&mac.finalize().into_bytes()[..MAC]);
    let file = File {
        kind,
        direct_path: "/v/a".to_owned(),
        media_key: Bytes32(media_key),
        file_enc_sha256: Bytes32(Sha256::digest(&stored).into()),
        file_sha256: Bytes32(Sha256::digest(content).into()),
        size: content.len() as u64,
        mimetype: None,
        file_name: None,
    };
    (file, stored)
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

/// What was given before the end, and the end.
fn decrypted(file: &File, stored: &[u8], piece: usize) -> (Vec<u8>, Result<Vec<u8>, Tampered>) {
    let mut decryptor = Decryptor::new(file);
    let mut given = Vec::new();
    for chunk in stored.chunks(piece) {
        match decryptor.update(chunk) {
            Ok(bytes) => given.extend_from_slice(&bytes),
            Err(tampered) => return (given, Err(tampered)),
        }
    }
    (given, decryptor.finish().map(|end| end.to_vec()))
}

#[test]
fn a_file_of_any_size_comes_out_whatever_pieces_it_comes_in() {
    for size in [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 1000, 4096] {
        let content = content(size);
        let (file, stored) = encrypted(&content, Kind::Image);
        assert_eq!(stored.len() as u64, encrypted_size(file.size));
        for piece in [1, 7, 16, 26, 43, 5000] {
            let (mut given, end) = decrypted(&file, &stored, piece);
            given.extend(end.unwrap());
            assert_eq!(given, content, "{size} in pieces of {piece}");
        }
    }
}

#[test]
fn some_of_a_file_is_held_back_until_all_of_it_was_checked() {
    for size in [1, 16, 32, 33, 160, 4096] {
        let (file, stored) = encrypted(&content(size), Kind::Video);
        let (given, end) = decrypted(&file, &stored, 10);
        assert!(given.len() < size, "{size}");
        assert!(!end.unwrap().is_empty(), "{size}");
    }
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let (file, stored) = encrypted(&content(100), Kind::Audio);
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        assert_eq!(decrypted(&file, &changed, 30).1, Err(Tampered::Mac), "{at}");
    }
    for length in 0..stored.len() {
        assert!(
            decrypted(&file, &stored[..length], 30).1.is_err(),
            "{length}"
        );
    }
    let longer = [stored.as_slice(), &[0; 64]].concat();
    assert!(decrypted(&file, &longer, 30).1.is_err());
}

#[test]
fn what_the_sender_said_must_be_so() {
    let (file, stored) = encrypted(&content(100), Kind::Document);
    let end = |file: File| decrypted(&file, &stored, 30).1.unwrap_err();
    let other = Bytes32([0; 32]);
    let said = file.clone();
    assert_eq!(
        end(File {
            file_sha256: other,
            ..said
        }),
        Tampered::Hash
    );
    let said = file.clone();
    assert_eq!(
        end(File {
            file_enc_sha256: other,
            ..said
        }),
        Tampered::EncryptedHash
    );
    for size in [0, 50, 99, 101, u64::MAX] {
        let said = file.clone();
        assert_eq!(end(File { size, ..said }), Tampered::Size);
    }
    // The keys of another kind are others.
    assert_eq!(
        end(File {
            kind: Kind::Image,
            ..file
        }),
        Tampered::Mac
    );
}
