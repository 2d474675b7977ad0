/*
 * names.h
 *		Names that a condition's words stand for in the catalogue.
 */
#ifndef QM_CONDITION_NAMES_H
#define QM_CONDITION_NAMES_H

#define CORE_SCHEMA "quota_manager"
#define CONDITION_SCHEMA "quota_condition"
#define EXTENSION_NAME "quota_manager"
#define SUBJECT_TYPE "subject"

/* The one built-in function whose answer may be unknown. */
#define BALANCE_FUNCTION "quota-le"

/* has-tag -> has_tag, and back; both allocate. */
extern char *function_of_condition_name(const char *name);
extern char *condition_name_of_function(const char *function);

#endif /* QM_CONDITION_NAMES_H */
