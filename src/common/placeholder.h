/*
 * placeholder.h
 *		Settings that were given a value before the library was loaded.
 *
 * PostgreSQL keeps such a value as a text, whoever gave it, and asks only when
 * the setting is defined whether it may be so.  If not it warns, and the setting
 * falls to its default: what the configuration file says was overwritten by
 * then.  So any role could put a setting out of force that only a superuser may
 * change, with the options of a connection to a server that does not preload
 * the library.
 */
#ifndef QM_PLACEHOLDER_H
#define QM_PLACEHOLDER_H

extern void placeholders_note(void);
extern void placeholders_require_adopted(void);

#endif /* QM_PLACEHOLDER_H */
