/*
 * names.h
 *		Names that a condition's words stand for in the catalogue.
 */
#ifndef QM_CONDITION_NAMES_H
#define QM_CONDITION_NAMES_H

#define CORE_SCHEMA "quota_manager"
#define CONDITION_SCHEMA "quota_condition"
#define INTERNAL_SCHEMA "quota_internal"
#define EXTENSION_NAME "quota_manager"
#define SUBJECT_TYPE "subject"

/*
 * The built-in function whose answer may be null, and the form it has once
 * condition_bind() has put the gateway in the place of the model.  That one is
 * for statements, not for strategies.
 */
#define BALANCE_FUNCTION "quota-le"
#define BOUND_BALANCE_FUNCTION "balance-le"

extern char *function_of_condition_name(const char *name);
extern char *condition_name_of_function(const char *function);

#endif /* QM_CONDITION_NAMES_H */
