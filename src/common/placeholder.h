/*
 * placeholder.h
 *		Settings that were given a value before the library was loaded.
 *
 * PostgreSQL keeps such a value as a text, whichever role gave it, and checks it
 * only when the setting is defined.  If the value is refused, the setting falls
 * back to its default with a warning, since the value of the configuration file
 * has been overwritten.  So with connection options, any role could reset a
 * setting that only a superuser may change, on a server that does not preload
 * the library.
 */
#ifndef QM_PLACEHOLDER_H
#define QM_PLACEHOLDER_H

extern void placeholders_note(void);
extern void placeholders_require_adopted(void);

#endif /* QM_PLACEHOLDER_H */
