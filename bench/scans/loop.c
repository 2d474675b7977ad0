/*
 * loop.c
 *		Grants as a program would that looks at one user after the other: for
 *		each strategy and each user a prepared statement that asks whether the
 *		user meets the condition, for those who do one that asks whether they
 *		have their grant, and one that writes it.
 *
 *		loop CONNINFO SET each|once
 *
 * The connection is one and stays open.  each: every grant is a transaction
 * of its own, as it must be where it is sent somewhere afterwards; once: all
 * are one transaction.  Prints how many users were asked about, how many
 * grants were written, and the seconds it took.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static PGconn *connection;

/* Ends the program with the connection's error. */
static void
fail(const char *what)
{
	fprintf(stderr, "loop: %s: %s", what, PQerrorMessage(connection));
	exit(1);
}

/* The result if it is what was expected; otherwise there is none to return. */
static PGresult *
expect(PGresult *result, ExecStatusType status, const char *what)
{
	if (PQresultStatus(result) != status)
		fail(what);
	return result;
}

/* Runs a statement without a result. */
static void
run(const char *statement)
{
	PQclear(expect(PQexec(connection, statement), PGRES_COMMAND_OK, statement));
}

/* Prepares a statement whose parameters have the types that it gives them. */
static void
prepare(const char *name, const char *statement)
{
	PQclear(expect(PQprepare(connection, name, statement, 0, NULL), PGRES_COMMAND_OK, statement));
}

/* Does a prepared statement return a row? */
static int
finds(const char *name, int count, const char *const *values)
{
	PGresult *result = expect(PQexecPrepared(connection, name, count, values, NULL, NULL, 0),
							  PGRES_TUPLES_OK, name);
	int       rows = PQntuples(result);

	PQclear(result);
	return rows > 0;
}

/* Runs one strategy over all users; returns how many grants it wrote. */
static long
run_strategy(const char *strategy, const char *predicate, PGresult *users)
{
	char statement[8192];
	long granted = 0;

	snprintf(statement, sizeof statement,
			 "SELECT 1 FROM quota_manager.user_info u WHERE u.id = $1::text AND (%s)", predicate);
	prepare("meets", statement);
	for (int i = 0; i < PQntuples(users); i++)
	{
		const char *user = PQgetvalue(users, i, 0);
		const char *values[2] = {strategy, user};

		if (!finds("meets", 1, &user) || finds("has", 2, values))
			continue;
		PQclear(expect(PQexecPrepared(connection, "give", 2, values, NULL, NULL, 0),
					   PGRES_COMMAND_OK, "give"));
		granted++;
	}
	run("DEALLOCATE meets");
	return granted;
}

int
main(int argc, char **argv)
{
	const char     *set;
	struct timespec start;
	struct timespec end;
	PGresult       *strategies;
	PGresult       *users;
	long            granted = 0;
	int             once;

	if (argc != 4)
	{
		fprintf(stderr, "usage: loop CONNINFO SET each|once\n");
		return 2;
	}
	set = argv[2];
	once = strcmp(argv[3], "once") == 0;
	connection = PQconnectdb(argv[1]);
	if (PQstatus(connection) != CONNECTION_OK)
		fail("no connection");
	strategies =
		expect(PQexecParams(connection,
							"SELECT id, predicate FROM bench_strategy WHERE set = $1 ORDER BY id",
							1, NULL, &set, NULL, NULL, 0),
			   PGRES_TUPLES_OK, "strategies");
	clock_gettime(CLOCK_MONOTONIC, &start);
	users = expect(PQexec(connection, "SELECT id FROM quota_manager.user_info"), PGRES_TUPLES_OK,
				   "users");
	prepare(
		"has",
		"SELECT 1 FROM loop_grant g WHERE g.strategy_id = $1::integer AND g.user_id = $2::text");
	prepare(
		"give",
		"INSERT INTO loop_grant (strategy_id, user_id, amount) VALUES ($1::integer, $2::text, 1)");
	if (once)
		run("BEGIN");
	for (int i = 0; i < PQntuples(strategies); i++)
		granted += run_strategy(PQgetvalue(strategies, i, 0), PQgetvalue(strategies, i, 1), users);
	if (once)
		run("COMMIT");
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%ld %ld %.6f\n", (long) PQntuples(users) * PQntuples(strategies), granted,
		   (double) (end.tv_sec - start.tv_sec) + (double) (end.tv_nsec - start.tv_nsec) / 1e9);
	PQclear(users);
	PQclear(strategies);
	PQfinish(connection);
	return 0;
}
