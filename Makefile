EXTENSION = quota_manager
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" quota_manager.control)
MODULE_big = quota_manager

# A folder per concern; which may use which is told in docs/decisions.md.
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

# CRASH_POINTS=1 builds a library for tests that can be made to die at named places: src/common/crash_point.h.
ifdef CRASH_POINTS
PG_CPPFLAGS += -DCRASH_POINTS
else
OBJS := $(filter-out src/common/crash_point.o,$(OBJS))
endif

# The install script in parts by subject, in the order of dependency.  They have a folder of their own because
# pg_regress takes a test of the same name from sql/ first.
SQL_PARTS = schema rights condition schedule gateway user condition_functions strategy execute \
	occurrence due user_source scan upcoming identity delivery decision worker pg_cron import access
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA = $(wildcard sql/$(EXTENSION)--*--*.sql)
DOCS = README.md

PG_CPPFLAGS += -I$(srcdir)/src -DQUOTA_MANAGER_VERSION='"$(EXTVERSION)"' $(CURL_CFLAGS) $(JSONC_CFLAGS)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = -lcurl -ljson-c -Wl,--version-script=$(srcdir)/src/exports.map

REGRESS = $(sort $(patsubst $(srcdir)/test/sql/%.sql,%,$(wildcard $(srcdir)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir)/test --encoding=UTF8 --load-extension=$(EXTENSION)
ISOLATION = $(sort $(patsubst $(srcdir)/test/isolation/specs/%.spec,%,$(wildcard $(srcdir)/test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test/isolation --encoding=UTF8 --load-extension=$(EXTENSION)

# With TEMP_INSTANCE=DIR the tests bring a throw-away cluster in DIR; without, they use a running one.
ifdef TEMP_INSTANCE
REGRESS_OPTS += --temp-instance=$(TEMP_INSTANCE)/regress --temp-config=$(srcdir)/test/test.conf
ISOLATION_OPTS += --temp-instance=$(TEMP_INSTANCE)/isolation --temp-config=$(srcdir)/test/test.conf
endif

EXTRA_CLEAN = sql/$(EXTENSION)--$(EXTVERSION).sql test/aigateway-mock/aigateway-mock

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

sql/$(EXTENSION)--$(EXTVERSION).sql: $(patsubst %,$(srcdir)/sql/parts/%.sql,$(SQL_PARTS)) $(srcdir)/quota_manager.control
	@mkdir -p sql
	cat $(patsubst %,$(srcdir)/sql/parts/%.sql,$(SQL_PARTS)) > $@

$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h) $(srcdir)/quota_manager.control

mock: test/aigateway-mock/aigateway-mock

test/aigateway-mock/aigateway-mock: $(wildcard $(srcdir)/test/aigateway-mock/*.c $(srcdir)/test/aigateway-mock/*.h)
	@mkdir -p test/aigateway-mock
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -o $@ $(filter %.c,$^) -lmicrohttpd -ljson-c -lpthread -lm

# TAP tests; PROVE_TESTS picks some.  PGXS would look for them in another folder on each major.
PROVE_TESTS ?= $(sort $(wildcard $(srcdir)/test/t/*.pl))
PROVE_OUTPUT ?= $(CURDIR)/tmp_check
prove: mock $(if $(shell grep -l QuotaTest::CrashPoints /dev/null $(wildcard $(PROVE_TESTS))),crash-build)
	mkdir -p $(PROVE_OUTPUT)
	PATH="$(bindir):$$PATH" LANG=C.UTF-8 LC_ALL=C.UTF-8 PG_REGRESS='$(top_builddir)/src/test/regress/pg_regress' \
	TESTDIR='$(PROVE_OUTPUT)' TESTDATADIR='$(PROVE_OUTPUT)' TESTLOGDIR='$(PROVE_OUTPUT)/log' \
	QUOTA_MANAGER_MOCK='$(CURDIR)/test/aigateway-mock/aigateway-mock' \
	QUOTA_MANAGER_CRASH_BUILD='$(abspath $(CRASH_BUILD))/install' \
	prove $(PROVE_FLAGS) -I $(top_srcdir)/src/test/perl -I $(srcdir)/test/perl $(PROVE_TESTS)

# The build with crash points is made from a copy and installed beside the tests' results, where the ordinary one cannot
# meet it.
CRASH_BUILD = $(PROVE_OUTPUT)/crash
crash-build:
	rm -rf $(CRASH_BUILD)
	mkdir -p $(CRASH_BUILD)/copy/sql
	cp -R $(foreach file,Makefile $(EXTENSION).control README.md src,$(srcdir)/$(file)) $(CRASH_BUILD)/copy
	cp -R $(srcdir)/sql/parts $(wildcard $(srcdir)/sql/*--*--*.sql) $(CRASH_BUILD)/copy/sql
	find $(CRASH_BUILD)/copy -name '*.o' -delete
	$(MAKE) -C $(CRASH_BUILD)/copy CRASH_POINTS=1 all
	$(MAKE) -C $(CRASH_BUILD)/copy CRASH_POINTS=1 install DESTDIR=$(abspath $(CRASH_BUILD))/install

.PHONY: mock prove crash-build
