/*
 * text.h
 *		Text of unknown origin made fit to be shown and stored.
 *
 * Nothing here allocates or fails.
 */
#ifndef QM_GATEWAY_TEXT_H
#define QM_GATEWAY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Copies text to out as one line: valid UTF-8, white space and control
 * characters folded to single blanks, none at either end, cut between
 * characters so that it ends with a NUL within size (at least 1).  Bytes that
 * are not UTF-8 become '?'.  Every occurrence of secret (NULL or "": none)
 * becomes "***", also one that is cut off at the end of text, and one that is
 * written with escapes of JSON, URLs or markup, up to two of them one within the
 * other, or in base64.
 */
extern void text_line(char *out, size_t size, const char *text, size_t length, const char *secret);

/*
 * Reads the UTF-8 character at text, of which length bytes (at least 1) are
 * there.  Returns its length and code point, or 0 if there is none: overlong
 * forms, surrogates and what lies beyond U+10FFFF are not characters.
 */
extern size_t text_character(const char *text, size_t length, uint32_t *code);

/* True if text of that length contains part, byte for byte. */
extern bool text_contains(const char *text, size_t length, const char *part);

/* True if text of that length begins with prefix, byte for byte. */
extern bool text_begins(const char *text, size_t length, const char *prefix);

/* True if every byte of text is a visible ASCII character or, if blanks are allowed, a blank. */
extern bool text_is_visible(const char *text, bool blanks);

#endif /* QM_GATEWAY_TEXT_H */
