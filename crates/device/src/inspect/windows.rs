//! Decoders, what stands behind device addresses, and where the guest sees it.

use wire::Dpa;

use crate::windows::{Decoder, Mapping, Piece, State};

use super::Value;
use super::node::{Node, fields, items, list};

pub(super) fn state(windows: &State) -> Node<'_> {
    fields!(
        "hdm-control" => Node::address(windows.hdm_control()),
        "decoders" => list(windows.decoders(), decoder),
        "pieces" => pieces(windows),
        "mappings" => mappings(windows),
    )
}

fn decoder(decoder: &Decoder) -> Node<'_> {
    let Decoder::Committed { fields: asked, range, dpa_end } = decoder else {
        return fields!("state" => Node::word(if *decoder == Decoder::Idle { "idle" } else { "failed" }));
    };
    fields!(
        "state" => Node::word("committed"),
        "base" => Node::address(asked.base.0),
        "size-bytes" => Node::number(asked.size_bytes),
        "skip-bytes" => Node::number(asked.skip_bytes),
        "ways" => Node::number(range.map_or(0, |range| range.ways.count())),
        "granularity-bytes" => Node::number(range.map_or(0, |range| range.granularity.bytes())),
        "dpa" => range.map_or(Node::word("none"), |range| Node::dpa(range.dpa)),
        "dpa-end" => Node::dpa(*dpa_end),
    )
}

fn pieces(windows: &State) -> Node<'_> {
    items(
        move || windows.pieces().map(piece).collect(),
        move |key| windows.piece(Dpa(Value::parse_number(key)?)).map(piece),
    )
}

fn piece(piece: &Piece) -> (String, Node<'_>) {
    let parts = fields!(
        "len-bytes" => Node::number(piece.range.len_bytes),
        "backend" => Node::text(&piece.backend),
        "offset-bytes" => Node::number(piece.offset_bytes),
    );
    (piece.range.start.to_string(), parts)
}

fn mappings(windows: &State) -> Node<'_> {
    let named = |mapping: Mapping| {
        let parts = fields!(
            "dpa" => Node::dpa(mapping.range.start),
            "len-bytes" => Node::number(mapping.range.len_bytes),
            "backend" => Node::text(&mapping.backend),
            "offset-bytes" => Node::number(mapping.offset_bytes),
        );
        (mapping.hpa.to_string(), parts)
    };
    items(
        move || windows.mappings().into_iter().map(named).collect(),
        move |key| {
            let hpa = Value::parse_number(key)?;
            windows.mappings().into_iter().find(|mapping| mapping.hpa.0 == hpa).map(named)
        },
    )
}
