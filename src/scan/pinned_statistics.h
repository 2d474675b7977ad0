/*
 * pinned_statistics.h
 *		What the planner sees of tables that grow by millions between two
 *		ANALYZEs.
 *
 * While the setting quota_manager.pinned_statistics is on, the planner takes
 * quota_execute, quota_run, user_balance and grant_decision for large tables
 * of a fixed shape, whatever they hold and whatever ANALYZE found.  So a
 * statement has one plan, the one that suits a large table, and a plan that
 * is kept does not become wrong.
 *
 * The setting is for statements of the extension: its functions have it in
 * their SET clause, its transactions set it.  Queries of people see what
 * ANALYZE found.
 */
#ifndef QM_PINNED_STATISTICS_H
#define QM_PINNED_STATISTICS_H

extern void pinned_statistics_install(void);

#endif /* QM_PINNED_STATISTICS_H */
