/*
 * scan.h
 *		Strategies x subjects -> quota_execute.
 *
 * The face of this concern is SQL: scan(), due_strategies(), undecided().
 * Everything runs in the caller's transaction; nothing here does HTTP.
 */
#ifndef QM_SCAN_H
#define QM_SCAN_H

extern void scan_define_settings(void);

#endif /* QM_SCAN_H */
