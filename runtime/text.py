"""The base model's text: tokenizer and chat template, read from its directory.

Owns text to ids and ids to text, without transformers or torch: the gateway imports it. Text of a request never
becomes a control token, whatever it says; only the template's own markers do.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from tenantry.runtime.chat_template import ChatTemplate, TemplateRefusal, Turn, find_template, shield
from tenantry.runtime.decoding import TextDecoder
from tenantry.runtime.errors import UnusableModel

__all__ = ["TemplateRefusal", "TextDecoder", "TextModel", "Turn"]

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_NAMED: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class TextModel:
    """vocab_size: ids the tokenizer knows are below it. control: ids of special tokens. longest_token: most bytes
    that one id stands for. Immutable and safe to share between threads."""

    def __init__(self, tokenizer_json: str, tokenizer_config: Mapping[str, Any], template: str | None) -> None:
        special = _special_tokens(tokenizer_config)
        self._marked, self._plain = _tokenizers(tokenizer_json, frozenset(special.values()))
        added = self._marked.get_added_tokens_decoder()
        self._control = {token.content: (i, token) for i, token in added.items() if token.special}
        self.control = frozenset(i for i, _ in self._control.values())
        vocab = self._marked.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab.values()) + 1
        self._bytes = _token_bytes(json.loads(tokenizer_json).get("decoder"), vocab, self.vocab_size)
        self._pieces = [b"" if i in self.control else piece for i, piece in enumerate(self._bytes)]
        self.longest_token = max(map(len, self._bytes))
        # Longest first, as the tokenizer prefers them.
        texts = sorted(self._control, key=len, reverse=True)
        self._splitter = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._template = ChatTemplate(template, special) if template is not None else None

    @classmethod
    def load(cls, directory: Path) -> "TextModel":
        """From tokenizer.json, tokenizer_config.json and chat_template.jinja. Raises UnusableModel."""
        try:
            source = (directory / "tokenizer.json").read_text(encoding="utf-8")
            config_file = directory / "tokenizer_config.json"
            config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
            if not isinstance(config, dict):
                raise UnusableModel("tokenizer_config.json holds no object")
            return cls(source, config, find_template(directory, config))
        except FileNotFoundError as error:
            raise UnusableModel(f"{Path(error.filename).name} is missing") from error
        except ValueError as error:
            raise UnusableModel(f"the tokenizer's files are malformed: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Ids of a plain prompt, with the beginning-of-text token if the tokenizer adds one. Control tokens spelled
        out in the text are ordinary text."""
        return list(self._plain.encode(text).ids)

    def render(self, turns: Sequence[Turn], add_generation_prompt: bool = True) -> list[int]:
        """Ids of a conversation through the chat template. Raises TemplateRefusal (a ValueError).

        Equal to transformers' apply_chat_template for turns that spell out no control token; such text is encoded as
        ordinary text here, between the control tokens of the template.
        """
        if self._template is None:
            raise TemplateRefusal("this model has no chat template")
        shielded, mark = shield(turns, list(self._control))
        text = self._template.render(shielded, add_generation_prompt)
        if mark is None:
            return list(self._marked.encode(text, add_special_tokens=False).ids)
        return self._encode_marked(text, mark)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of ids, control tokens left out."""
        decoder = self.decoder()
        return decoder.push(tokens) + decoder.end()

    def decoder(self, stops: Iterable[str] = (), min_tokens: int = 0) -> TextDecoder:
        """An incremental decoder for one choice. min_tokens: the request's: stop strings count only after them."""
        return TextDecoder(self._pieces, stops, min_tokens)

    def token_bytes(self, token: int) -> bytes:
        """What one id stands for, its name for a control token, nothing for an id without a token."""
        return self._bytes[token] if 0 <= token < self.vocab_size else b""

    def _encode_marked(self, text: str, mark: str) -> list[int]:
        """Split at the template's control tokens as the tokenizer would, then encode what lies between as text."""
        assert self._splitter is not None, "only control tokens are shielded"
        ids: list[int] = []
        at, swallow = 0, False
        for match in self._splitter.finditer(text):
            token, added = self._control[match.group()]
            between = text[at : match.start()]
            ids += self._encode_between(between.rstrip() if added.lstrip else between, mark, swallow)
            ids.append(token)
            at, swallow = match.end(), added.rstrip
        return ids + self._encode_between(text[at:], mark, swallow)

    def _encode_between(self, text: str, mark: str, swallow: bool) -> list[int]:
        text = (text.lstrip() if swallow else text).replace(mark, "")
        return list(self._plain.encode(text, add_special_tokens=False).ids) if text else []


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token … of a tokenizer config, as text."""
    found = {name: config.get(name) for name in _NAMED}
    contents = {name: v.get("content") if isinstance(v, dict) else v for name, v in found.items()}
    return {name: content for name, content in contents.items() if isinstance(content, str)}


def _tokenizers(source: str, special: frozenset[str]) -> tuple[Tokenizer, Tokenizer]:
    """(one that knows control tokens, one that takes them for text). What the config calls special is a control
    token even if tokenizer.json forgot to say so."""
    data = json.loads(source)
    if not isinstance(data, dict):
        raise UnusableModel("tokenizer.json holds no object")
    for token in data.get("added_tokens") or ():
        token["special"] = token["special"] or token["content"] in special
    data["truncation"] = data["padding"] = None
    source = json.dumps(data)
    try:
        marked, plain = Tokenizer.from_str(source), Tokenizer.from_str(source)
    except Exception as error:  # the library raises no narrower type
        raise UnusableModel(f"tokenizer.json is not usable: {error}") from error
    plain.encode_special_tokens = True
    return marked, plain


def _token_bytes(decoder: Any, vocab: Mapping[str, int], size: int) -> list[bytes]:
    """Bytes of every id, by the two families of decoders: byte-level BPE, and SentencePiece with byte fallback."""
    kinds = _kinds(decoder)
    table: list[bytes] = [b""] * size
    if "ByteLevel" in kinds:
        alphabet = _byte_alphabet()
        for token, i in vocab.items():
            known = [alphabet.get(c) for c in token]
            table[i] = bytes(b for b in known if b is not None) if None not in known else token.encode()
    elif kinds & {"Metaspace", "ByteFallback", "Replace"}:
        for token, i in vocab.items():
            byte = _BYTE_TOKEN.fullmatch(token)
            table[i] = bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
    else:
        raise UnusableModel(f"tokenizer.json: decoder {'/'.join(sorted(kinds)) or 'absent'} is not supported")
    return table


def _kinds(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    if decoder.get("type") == "Sequence":
        return set().union(*(_kinds(d) for d in decoder.get("decoders", ())))
    return {str(decoder.get("type"))}


def _byte_alphabet() -> dict[str, int]:
    """The printable characters that byte-level BPE writes bytes with (GPT-2's bytes_to_unicode, inverted)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
