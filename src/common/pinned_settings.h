/*
 * pinned_settings.h
 *		Settings of PostgreSQL that change what a query returns.
 *
 * The result of a scan must not depend on settings of a session, a role or a
 * database: conditions, and what their functions read and write as
 * text, are evaluated with the values that are fixed here.  Settings that only
 * change plans, and those that only superusers can set, are left alone.
 */
#ifndef QM_PINNED_SETTINGS_H
#define QM_PINNED_SETTINGS_H

#include "postgres.h"

#include "utils/guc.h"

extern void settings_pin(GucAction action);

/*
 * So that nothing that a role, a database or a session has set hides rows from
 * code of ours, cuts it short, or has it read or commit in another way: for the
 * current transaction, in which no snapshot was taken yet, with settings_pin;
 * and for the session of a worker.
 */
extern void settings_isolate_transaction(void);
extern void settings_isolate_session(void);
extern void settings_lift_transaction_timeout(void);

#endif /* QM_PINNED_SETTINGS_H */
