
=pod

=head1 NAME

QuotaTest::ConditionPaths - what the extension says of conditions, both ways

=head1 DESCRIPTION

  my $paths = QuotaTest::ConditionPaths->new($node, \@users);
  my $answers = $paths->ask({ $n => $text, ... });

Every condition is put to the extension as a constant, which the planner turns
into an expression (I<planned>), and as the value of a column, which is compiled
while the query runs (I<executed>), for every user at once.

An answer is a hash:

  raised      what check_condition raised, which it never should
  valid       whether check_condition liked the text
  sqlstate    its word for what is wrong,
  position    where,
  message     and its text
  canonical   the condition as it is stored
  again       that, checked and written once more
  planned     a letter for each user: t, n (undecided), f; or "!" and the SQLSTATE
  executed    the same
  matched     with users_in_tables(): t or f for each user, by WHERE on the view

=cut

package QuotaTest::ConditionPaths;

use strict;
use warnings FATAL => 'all';

use Encode qw(decode encode);

my @columns = qw(raised valid sqlstate position message canonical again planned
  executed matched);

# Sets up the questions in database postgres of a node and loads the users.
sub new
{
	my ($class, $node, $users) = @_;
	my $self = bless { node => $node }, $class;

	$self->_sql(<<'SQL');
CREATE SCHEMA quota_test;

CREATE TABLE quota_test.incoming (n integer, id text, github_star text,
	vip integer, org text, register_time timestamptz, access_time timestamptz,
	balances jsonb);
CREATE TABLE quota_test.person (n integer PRIMARY KEY, s quota_manager.subject);
CREATE UNLOGGED TABLE quota_test.question (n integer PRIMARY KEY, text text);
CREATE UNLOGGED TABLE quota_test.stored
	(n integer PRIMARY KEY, condition quota_manager.condition);

-- A letter for each user, the condition being a constant.
CREATE FUNCTION quota_test.planned(condition text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE format($sql$
		SELECT string_agg(CASE
			WHEN p.s OPERATOR(quota_manager.@@) %1$L THEN 't'
			WHEN quota_manager.may_match(p.s, %1$L) THEN 'n'
			ELSE 'f' END, '' ORDER BY p.n)
		FROM quota_test.person p $sql$, condition) INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN '!' || SQLSTATE;
END $$;

-- The same, the condition being the value of a column.
CREATE FUNCTION quota_test.executed(number integer, condition text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	INSERT INTO quota_test.stored
		VALUES (number, condition::quota_manager.condition);
	SELECT string_agg(CASE
			WHEN p.s OPERATOR(quota_manager.@@) c.condition THEN 't'
			WHEN quota_manager.may_match(p.s, c.condition) THEN 'n'
			ELSE 'f' END, '' ORDER BY p.n)
		INTO answer
		FROM quota_test.stored c, quota_test.person p WHERE c.n = number;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN '!' || SQLSTATE;
END $$;

-- Who matches by the tables and their indexes. Replaced by users_in_tables().
CREATE FUNCTION quota_test.matched(condition text) RETURNS text
LANGUAGE sql AS 'SELECT NULL::text';

CREATE FUNCTION quota_test.answers() RETURNS TABLE (n integer, raised text,
	valid boolean, sqlstate text, "position" integer, message text,
	canonical text, again text, planned text, executed text, matched text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	question quota_test.question;
BEGIN
	FOR question IN SELECT * FROM quota_test.question ORDER BY n LOOP
		n := question.n;
		raised := NULL;
		BEGIN
			SELECT c.valid, c.sqlstate, c."position", c.message, c.condition::text
				INTO valid, sqlstate, "position", message, canonical
				FROM quota_manager.check_condition(question.text) c;
			SELECT c.condition::text INTO again
				FROM quota_manager.check_condition(canonical) c;
		EXCEPTION WHEN OTHERS THEN
			raised := SQLSTATE || ' ' || SQLERRM;
		END;
		planned := quota_test.planned(question.text);
		executed := quota_test.executed(n, question.text);
		matched := CASE WHEN valid THEN quota_test.matched(question.text) END;
		RETURN NEXT;
	END LOOP;
END $$;
SQL

	$self->_sql(
		$self->_copy(
			'quota_test.incoming',
			map { [ $_, _columns_of($users->[$_]) ] } 0 .. $#$users)
		  . <<'SQL');
INSERT INTO quota_test.person (n, s.id, s.github_star, s.vip, s.org,
		s.register_time, s.access_time, s.balances)
	SELECT n, id, github_star, vip, org, register_time, access_time, balances
	FROM quota_test.incoming;
ANALYZE quota_test.person;
SQL
	return $self;
}

# Puts the users into the extension's own tables too, and asks the view
# quota_manager.subject from then on, by its indexes where there are any.
sub users_in_tables
{
	my ($self) = @_;

	$self->_sql(<<'SQL');
INSERT INTO quota_manager.user_info
		(id, github_star, vip, org, register_time, access_time)
	SELECT id, github_star, vip, org, register_time, access_time
	FROM quota_test.incoming;
INSERT INTO quota_manager.user_balance (user_id, gateway, balance, read_time)
	SELECT i.id, b.key, b.value::numeric, now()
	FROM quota_test.incoming i, jsonb_each_text(i.balances) b;
ANALYZE quota_manager.user_info, quota_manager.user_balance;

CREATE OR REPLACE FUNCTION quota_test.matched(condition text) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE format($sql$
		SELECT string_agg(CASE WHEN m.id IS NULL THEN 'f' ELSE 't' END, ''
			ORDER BY i.n)
		FROM quota_test.incoming i LEFT JOIN
			(SELECT s.id FROM quota_manager.subject s
			 WHERE s OPERATOR(quota_manager.@@) %L) m USING (id)
		$sql$, condition) INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN '!' || SQLSTATE;
END $$;
SQL
	return;
}

# The answers to questions: hash from number to text, hash from number to answer.
sub ask
{
	my ($self, $questions) = @_;
	my %answers;

	my $out = $self->_sql(
		"TRUNCATE quota_test.question, quota_test.stored;\n"
		  . "UPDATE quota_manager.user_balance SET read_time = now();\n"
		  . $self->_copy(
			'quota_test.question', map { [ $_, $questions->{$_} ] } keys %$questions)
		  . "COPY (SELECT * FROM quota_test.answers()) TO STDOUT;\n");
	foreach my $line (split /\n/, $out)
	{
		my ($n, @values) = map { _unescaped($_) } split /\t/, $line, -1;
		my %answer;

		@answer{@columns} = @values;
		$answer{valid} = ($answer{valid} // '') eq 't';
		$answers{$n} = \%answer;
	}
	return \%answers;
}

# The SQL that loads rows into a table.
sub _copy
{
	my ($self, $table, @rows) = @_;

	return join '', "COPY $table FROM STDIN;\n",
	  (map { join("\t", map { _escaped($_) } @$_) . "\n" } @rows), "\\.\n";
}

# A user's columns for COPY, the number left out.
sub _columns_of
{
	my ($user) = @_;
	my $balance = $user->{balance};
	my $json = defined $balance
	  ? '{' . join(',', map { qq("$_":$balance->{$_}) } sort keys %$balance) . '}'
	  : undef;

	return (@$user{qw(id github_star vip org)},
		(map { _zoned($_) } @$user{qw(register_text access_text)}), $json);
}

# A time that says its zone.
sub _zoned
{
	my ($text) = @_;

	return $text if !defined $text || $text =~ /(?:Z|[+-]\d\d:\d\d|infinity)$/;
	return "${text}Z";
}

sub _escaped
{
	my ($value) = @_;
	my %letter = ("\n" => 'n', "\r" => 'r', "\t" => 't', '\\' => '\\');

	return '\N' if !defined $value;
	return $value =~ s/([\n\r\t\\])/\\$letter{$1}/gr;
}

sub _unescaped
{
	my ($value) = @_;
	my %sign = (n => "\n", r => "\r", t => "\t", b => "\b", f => "\f", v => "\x{b}");

	return undef if $value eq '\N';
	return $value =~ s/\\(.)/$sign{$1} \/\/ $1/ger;
}

# Runs SQL, dies when it fails, and returns what it wrote.
sub _sql
{
	my ($self, $sql) = @_;

	return decode('UTF-8', $self->{node}->safe_psql('postgres', encode('UTF-8', $sql)));
}

1;
