"""Bytes of a mail as text, in the charsets that mails are written in.

A mail names its charset, and Python has codecs that no mail needs: some take quadratic time (punycode, idna),
some are no charsets (unicode_escape, hex) or give half characters (utf-7). So only those listed are taken.
"""

from encodings import normalize_encoding
from encodings.aliases import aliases

_LISTED = """
ascii utf_8 utf_8_sig utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le latin_1 koi8_r koi8_u
gb2312 gbk gb18030 big5 big5hkscs euc_jp shift_jis cp932 euc_kr cp949 johab mac_roman tis_620
iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_ext iso2022_kr cp437 cp850 cp852 cp855 cp858 cp866 cp874
"""
_CHARSETS = {
    *_LISTED.split(),
    *(f"iso8859_{part}" for part in (*range(2, 12), *range(13, 17))),
    *(f"cp{page}" for page in range(1250, 1259)),
}
_LONGEST_NAME = 40


def to_text(content: bytes, charset: str) -> str:
    """`content` as text. What is not in `charset`, or in one that is not taken, is read as UTF-8.

    Bytes that UTF-8 does not know become U+FFFD. Never raises; the text can be encoded as UTF-8.
    """
    name = normalize_encoding(charset[:_LONGEST_NAME].encode("ascii", "replace").decode("ascii")).lower()
    codec = aliases.get(name, name)
    if codec in _CHARSETS:
        try:
            return content.decode(codec)
        except UnicodeError:
            pass
    return content.decode("utf-8", "replace")
