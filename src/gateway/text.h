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

extern void text_line(char *out, size_t size, const char *text, size_t length, const char *secret);
extern size_t text_character(const char *text, size_t length, uint32_t *code);
extern bool   text_contains(const char *text, size_t length, const char *part);
extern bool   text_begins(const char *text, size_t length, const char *prefix);
extern bool   text_is_visible(const char *text);
extern bool   text_is_printable(const char *text);

#endif /* QM_GATEWAY_TEXT_H */
