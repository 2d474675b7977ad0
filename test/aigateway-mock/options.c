/*
 * options.c
 *		The command line.
 */
#include "options.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"aigateway-mock plays the quota interface of an AiGateway on 127.0.0.1.\n"
	"\n"
	"Usage: aigateway-mock --dialect higress|zgsm [OPTION]...\n"
	"\n"
	"  --dialect NAME       higress (integers, text) or zgsm (decimals, JSON)\n"
	"  --port N             port to listen on; 0 (default) takes a free one; the first line "
	"printed\n"
	"                       is \"listening on 127.0.0.1:PORT\"\n"
	"  --key SECRET         ask for this key; without it no key is asked for\n"
	"  --other-key SECRET   higress: a valid key of somebody who is not the admin\n"
	"  --group-pools        higress: the words of the version with group pools\n"
	"  --integers           zgsm: the public version, which knows no fractions\n"
	"  --key-header NAME    zgsm: the header that carries the key (default x-admin-key)\n"
	"  --admin-path PATH    higress: what follows /v1/chat/completions (default /quota)\n"
	"                       zgsm: the whole path (default /v1/chat/completions/quota)\n"
	"  --model-header M     higress: answer only requests with x-higress-llm-model: M\n"
	"  --lifetime SECONDS   stop after so long (default 3600)\n"
	"  --threads N          threads that serve connections (default 1)\n"
	"  --header-limit BYTES largest request line with headers (default 65536); every request on a\n"
	"                       kept-alive connection costs time in proportion to it\n"
	"  --journal FILE       write every change to the file before it is made, and begin with what "
	"it "
	"says:\n"
	"                       what was applied then outlives kill -9\n"
	"  --help               print this\n"
	"\n"
	"GET /health answers \"ok\"; /mock/... is for tests: applied changes, counters, balances, "
	"faults.\n"
	"SIGTERM and SIGINT end it.\n";

/*
 * Reports a mistake on the command line and ends the process.
 */
static void __attribute__((noreturn, format(printf, 1, 2))) refuse(const char *format, ...)
{
	va_list arguments;

	fputs("aigateway-mock: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputs("\nTry \"aigateway-mock --help\".\n", stderr);
	exit(2);
}

/*
 * A whole number within bounds.
 */
static unsigned
read_number(const char *option, const char *text, unsigned lowest, unsigned highest)
{
	amount number;

	if (!amount_read_integer(text, strlen(text), &number) || number < lowest || number > highest)
		refuse("--%s must be a number from %u to %u, not \"%s\"", option, lowest, highest, text);
	return (unsigned) number;
}

/*
 * A dialect by its name.
 */
static const struct dialect *
read_dialect(const char *name)
{
	if (strcmp(name, dialect_higress.name) == 0)
		return &dialect_higress;
	if (strcmp(name, dialect_zgsm.name) == 0)
		return &dialect_zgsm;
	refuse("unknown dialect \"%s\": higress or zgsm", name);
}

/*
 * Fills in what the dialect decides and refuses what does not go with it.
 */
static void
complete(struct options *options)
{
	if (options->dialect == NULL)
		refuse("--dialect is missing: higress or zgsm");
	if (options->key_header != NULL && options->dialect != &dialect_zgsm)
		refuse("--key-header is for the dialect zgsm; higress reads Authorization");
	if (options->other_key != NULL && options->dialect != &dialect_higress)
		refuse("--other-key is for the dialect higress");
	if (options->group_pools && options->dialect != &dialect_higress)
		refuse("--group-pools is for the dialect higress");
	if (options->integers && options->dialect != &dialect_zgsm)
		refuse("--integers is for the dialect zgsm");
	if (options->model != NULL && options->dialect != &dialect_higress)
		refuse("--model-header is for the dialect higress");
	if (options->key_header == NULL)
		options->key_header = options->dialect->key_header;
	if (options->admin_path == NULL)
		options->admin_path = options->dialect->admin_path;
	if (options->admin_path[0] != '/')
		refuse("--admin-path must begin with a slash, not \"%s\"", options->admin_path);
	if (options->group_pools)
		options->dialect = &dialect_higress_pools;
	if (options->integers)
		options->dialect = &dialect_zgsm_integers;
	if (options->key != NULL && options->key[0] == '\0')
		options->key = NULL;
}

/*
 * Reads the command line; see the header.
 */
void
read_options(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{"dialect", required_argument, NULL, 'd'},
		{"port", required_argument, NULL, 'p'},
		{"key", required_argument, NULL, 'k'},
		{"other-key", required_argument, NULL, 'o'},
		{"group-pools", no_argument, NULL, 'g'},
		{"integers", no_argument, NULL, 'i'},
		{"key-header", required_argument, NULL, 'H'},
		{"admin-path", required_argument, NULL, 'a'},
		{"model-header", required_argument, NULL, 'm'},
		{"lifetime", required_argument, NULL, 'l'},
		{"threads", required_argument, NULL, 't'},
		{"header-limit", required_argument, NULL, 'b'},
		{"journal", required_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	*options = (struct options){.lifetime = 3600, .threads = 1, .header_limit = 65536};
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", known, NULL)) != -1)
	{
		switch (option)
		{
			case 'd':
				options->dialect = read_dialect(optarg);
				break;
			case 'p':
				options->port = read_number("port", optarg, 0, 65535);
				break;
			case 'k':
				options->key = optarg;
				break;
			case 'o':
				options->other_key = optarg;
				break;
			case 'g':
				options->group_pools = true;
				break;
			case 'i':
				options->integers = true;
				break;
			case 'H':
				options->key_header = optarg;
				break;
			case 'a':
				options->admin_path = optarg;
				break;
			case 'm':
				options->model = optarg;
				break;
			case 'l':
				options->lifetime = read_number("lifetime", optarg, 1, 1000000000);
				break;
			case 't':
				options->threads = read_number("threads", optarg, 1, 64);
				break;
			case 'b':
				options->header_limit = read_number("header-limit", optarg, 4096, 64 << 20);
				break;
			case 'j':
				options->journal = optarg;
				break;
			case 'h':
				fputs(usage, stdout);
				exit(0);
			case ':':
				refuse("option %s needs a value", argv[optind - 1]);
			default:
				refuse("unknown option %s", argv[optind - 1]);
		}
	}
	if (optind < argc)
		refuse("unexpected argument \"%s\"", argv[optind]);
	complete(options);
}
