"""Random pairs of a schedule and an instant, with the next firing as Debian's croniter has it.

usage: pairs.py COUNT SEED [all]        (all: every zone of the tz data instead of a few)

croniter does the reckoning with fields and dates.  It is told our rules where its own are others; what
the clock of a zone does is read from the tz data by Python's zoneinfo.  A line has, with tabs between:

    schedule  instant (seconds since 1970)  zone  class  wanted  croniter's own answer  explained

The class says, by rule and before anything is computed, where the rules of croniter differ from ours:

    utc, zone     nowhere: croniter, given the text and the zone, has to give our answer
    clock         the clock of the zone changes between the instant and the firing
    late          the firing is after 2037, where croniter's zones (pytz) end
    odd_offset    the offset of the zone has seconds, which they leave out
    star_step     a day field is */n: for us not restricted, for croniter it is
    whole_field   a day field lists all of its values: for us restricted, for croniter it is not
    sunday        7 in the day of week: for us a Sunday, and the end of no a/n; for croniter a/n ends there, and with six
                  fields it is a day that never comes
    march         the firing is on 1 or 2 March, which croniter leaps over when it comes from February and the days have
                  a 30th or 31st
    never         a date that never comes: for us an error
    refused       forms that croniter takes and we refuse

"wanted" is what next_firing() has to answer, empty for an error; "explained" whether croniter's own
answer is the one that its other rule gives.  docs/schedules.md lists these differences.
"""

import bisect
import datetime
import random
import sys
import zoneinfo

import pytz
from croniter import CroniterBadDateError, croniter

DAY = 86400
NAMES = {4: "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 5: "SUN MON TUE WED THU FRI SAT".split()}
# second, minute, hour, day of month, month, day of week
LOW = (0, 0, 0, 1, 1, 0)
LAST = (59, 59, 23, 31, 12, 6)
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
YEARS = 100
PER_SCHEDULE = 3
# 2038-01-01
PYTZ_ENDS = 24837 * DAY

ZONES = """Africa/Cairo Africa/Casablanca Africa/El_Aaiun Africa/Johannesburg Africa/Monrovia America/Caracas America/Havana
America/New_York America/Santiago America/Sao_Paulo America/St_Johns America/Nuuk Antarctica/Casey Antarctica/Troll Asia/Amman
Asia/Gaza Asia/Kathmandu Asia/Kolkata Asia/Pyongyang Asia/Shanghai Asia/Tehran Australia/Eucla Australia/Lord_Howe
Europe/Berlin Europe/Dublin Europe/Istanbul Europe/Lisbon Europe/London Europe/Moscow Pacific/Apia Pacific/Chatham
Pacific/Kiritimati Pacific/Kwajalein Pacific/Norfolk""".split()


class Zone:
    """The offsets of a zone from 1969 until nobody asks any more, found by looking at every day."""

    cache = {}

    def __init__(self, name):
        tz = zoneinfo.ZoneInfo(name)
        utc = datetime.timezone.utc
        epoch = datetime.datetime(1970, 1, 1, tzinfo=utc)

        def offset_at(instant):
            offset = (epoch + datetime.timedelta(seconds=instant)).astimezone(tz).utcoffset()
            return offset.days * DAY + offset.seconds

        self.pytz = pytz.timezone(name)
        self.starts = [-(1 << 60)]
        self.offsets = [offset_at(-200 * DAY)]
        for instant in range(-200 * DAY, 62000 * DAY, DAY):
            if offset_at(instant) != self.offsets[-1]:
                before, after = instant - DAY, instant
                while after - before > 1:
                    middle = (before + after) // 2
                    if offset_at(middle) == self.offsets[-1]:
                        before = middle
                    else:
                        after = middle
                self.starts.append(after)
                self.offsets.append(offset_at(after))

    @classmethod
    def named(cls, name):
        if name not in cls.cache:
            cls.cache[name] = Zone(name)
        return cls.cache[name]

    def span(self, instant):
        return bisect.bisect_right(self.starts, instant) - 1

    def end(self, span):
        return self.starts[span + 1] if span + 1 < len(self.starts) else 1 << 60

    def offset(self, instant):
        return self.offsets[self.span(instant)]

    def latest_shown(self, instant):
        """The latest time that the clock has shown up to an instant."""
        return max(
            min(self.end(span) - 1, instant) + self.offsets[span]
            for span in range(self.span(instant - 2 * DAY), self.span(instant) + 1)
        )

    def first_reached(self, reading):
        """The instant at which the clock first shows a time or a later one."""
        span = self.span(reading - 2 * DAY)
        while True:
            instant = max(self.starts[span], reading - self.offsets[span])
            if instant < self.end(span):
                return instant
            span += 1

    def shows_date_of(self, reading):
        """Whether the clock shows any time of that date."""
        begin = reading - reading % DAY
        return any(
            self.starts[span] + self.offsets[span] < begin + DAY and self.end(span) + self.offsets[span] > begin
            for span in range(self.span(begin - 2 * DAY), self.span(begin + 2 * DAY) + 1)
        )


class Field:
    """A random field: its text, and the values it has here and there."""

    def __init__(self, number, any_chance):
        self.number = number
        self.ours = set()
        self.theirs = set()
        self.bare_star = False
        self.texts = []
        if random.random() < any_chance:
            self.add("*", range(LOW[number], LAST[number] + 1))
            self.bare_star = True
        else:
            for _ in range(random.choice((1, 1, 1, 1, 2, 3, 5))):
                self.element()
        self.text = ",".join(self.texts)
        self.whole = len(self.ours) == LAST[number] - LOW[number] + 1
        if number in (3, 5) and self.text == "*" and random.random() < 0.3:
            self.text = "?"

    @property
    def star(self):
        return self.text[0] in "*?"

    def add(self, text, ours, theirs=None):
        self.texts.append(text)
        self.ours.update(value % 7 if self.number == 5 else value for value in ours)
        self.theirs.update(ours if theirs is None else theirs)

    def element(self):
        number, low, last = self.number, LOW[self.number], LAST[self.number]
        names = NAMES.get(number) if random.random() < 0.5 else None
        high = 7 if number == 5 and not names else last
        start = random.randint(low, high)
        step = random.choice((1, 2, 3, 5, 7, random.randint(1, high), random.randint(1, high)))
        step = min(step, 7 if number == 5 else high)

        def write(value):
            if names:
                name = names[(value - low) % len(names)]
                return random.choice((name, name.lower(), name.capitalize()))
            return "0" * random.choice((0, 0, 0, 1)) + str(value)

        kind = random.choice(("value", "value", "value", "range", "range/step", "start/step", "*/step", "*"))
        if kind == "value":
            text = write(start)
            self.add(text, [start])
        elif kind.startswith("range"):
            # a Sunday that ends a range is written 7, or by its name
            end = random.randint(start, 7 if number == 5 and start > 0 else high)
            text = write(start) + "-" + write(end)
            if kind == "range":
                step = 1
            else:
                text += f"/{step}"
            self.add(text, range(start, end + 1, step))
        elif kind == "start/step":
            text = write(start) + f"/{step}"
            if number == 5:
                self.add(text, range(start % 7, 7, step), range(start, 8, step))
            else:
                self.add(text, range(start, last + 1, step))
        elif kind == "*/step":
            text = f"*/{step}"
            self.add(text, range(low, last + 1, step), range(low, (7 if number == 5 else last) + 1, step))
        elif random.random() < 0.2:
            self.add("*", range(low, last + 1))
            self.bare_star = True

    def read_by_croniter(self, seconds):
        """Makes "theirs" the values that croniter takes from the text."""
        if self.number == 5 and not seconds:
            self.theirs = {value % 7 for value in self.theirs}
        # as many values as the field has are taken for *; 7 is never compared with anything
        self.their_star = self.bare_star or len(self.theirs) == LAST[self.number] - LOW[self.number] + 1
        if self.their_star:
            self.theirs = set(range(LOW[self.number], LAST[self.number] + 1))
        elif self.number == 5:
            self.theirs.discard(7)


class Schedule:
    """A random schedule, and croniter objects that know it in our sense and in its own."""

    def __init__(self):
        chances = (0.1, 0.15, 0.3, 0.5, 0.6, 0.5)
        while True:
            self.fields = [Field(number, chance) for number, chance in enumerate(chances)]
            if all(field.text for field in self.fields):
                break
        self.seconds = random.random() < 0.25
        if not self.seconds:
            self.fields[0].ours = self.fields[0].theirs = {0}
            self.fields[0].bare_star = False
        day, weekday = self.fields[3], self.fields[5]
        self.text = " ".join(field.text for field in self.fields[0 if self.seconds else 1 :])
        self.every_hour = self.fields[2].text == "*"

        for field in self.fields:
            field.read_by_croniter(self.seconds)
        self.either = not day.star and not weekday.star
        self.their_either = not day.their_star and not weekday.their_star
        self.classes = []
        if weekday.theirs != weekday.ours:
            self.classes.append("sunday")
        if self.their_either and not self.either:
            self.classes.append("star_step")
        if self.either and not self.their_either:
            self.classes.append("whole_field")
        if not self.possible():
            self.classes = ["never"]
            return

        texts = ["*" if field.text == "?" else field.text for field in self.fields]
        # what never comes is not looked for in a hundred years
        years = YEARS if weekday.theirs else 1
        self.their_croniter = self.croniter = croniter(self.in_their_order(texts), 0, max_years_between_matches=years)
        if self.classes:
            # our rules in croniter's words
            if self.either and (day.whole or weekday.whole):
                texts[3] = texts[5] = "*"
            elif weekday.theirs != weekday.ours:
                texts[5] = ",".join(str(value) for value in weekday.ours)
            self.croniter = croniter(self.in_their_order(texts), 0, day_or=self.either, max_years_between_matches=YEARS)

        star = texts[3] == "*" or day.bare_star or (day.whole and not self.their_either)
        self.leaps = not star and self.can_leap(day.ours, self.fields[4].ours)
        self.their_leaps = not day.their_star and self.can_leap(day.theirs, self.fields[4].theirs)

    @staticmethod
    def can_leap(days, months):
        """Whether croniter can leap over a firing: from a 30th or 31st of February over 1 or 2 March."""
        return {2, 3} <= months and bool(days & {1, 2}) and bool(days & {30, 31})

    def next(self, reading):
        """The next firing by our rules, on a clock that never changes."""
        if self.leaps:
            return self.walk(reading, [field.ours for field in self.fields], self.either)
        return after(self.croniter, reading)

    def their_next(self, reading):
        """The next firing as croniter has it, on a clock that never changes."""
        return after(self.their_croniter, reading)

    def by_their_rules(self, reading, own):
        """Whether what croniter has for the next firing is the one by its rules."""
        rule = self.walk(reading, [field.theirs for field in self.fields], self.their_either)
        return own == rule or (self.their_leaps and behind_february(reading, rule) and own > rule)

    def in_their_order(self, texts):
        second, minute, hour, day, month, weekday = texts
        return " ".join((minute, hour, day, month, weekday) + ((second,) if self.seconds else ()))

    def possible(self):
        return any(day <= LONGEST[month - 1] for month in self.fields[4].ours for day in self.fields[3].ours)

    @staticmethod
    def walk(reading, fields, either):
        """The next firing, found by looking at one day after another."""
        second, minute, hour, day, month, weekday = fields
        if not weekday:
            return None
        date = datetime.date(1970, 1, 1) + datetime.timedelta(days=reading // DAY)
        low = reading % DAY + 1
        for _ in range(YEARS * 366):
            by_day = date.day in day
            by_weekday = date.isoweekday() % 7 in weekday
            if date.month in month and (by_day or by_weekday if either else by_day and by_weekday):
                for h in sorted(hour):
                    for m in sorted(minute) if h * 3600 + 3599 >= low else ():
                        for s in sorted(second) if h * 3600 + m * 60 + 59 >= low else ():
                            if h * 3600 + m * 60 + s >= low:
                                return (date - datetime.date(1970, 1, 1)).days * DAY + h * 3600 + m * 60 + s
            date += datetime.timedelta(days=1)
            low = 0
        return None


def behind_february(reading, firing):
    """Whether a firing is on 1 or 2 March, and the time before that."""
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=firing // DAY)
    march = (datetime.date(date.year, 3, 1) - datetime.date(1970, 1, 1)).days * DAY
    return date.month == 3 and date.day <= 2 and reading < march


def after(iterator, reading):
    """The next firing on a clock that never changes; None if there is none."""
    try:
        return int(iterator.get_next(float, start_time=float(reading)))
    except CroniterBadDateError:
        return None


def next_in_zone(schedule, zone, instant):
    """The next firing in a zone, by our rules for clock changes."""
    if schedule.every_hour:
        span = zone.span(instant + 1)
        while True:
            offset = zone.offsets[span]
            firing = schedule.next(max(instant, zone.starts[span] - 1) + offset) - offset
            if firing < zone.end(span):
                return firing
            span += 1
    reading = schedule.next(zone.latest_shown(instant))
    while not zone.shows_date_of(reading):
        reading = schedule.next(reading - reading % DAY + DAY - 1)
    return zone.first_reached(reading)


def random_instant():
    year = random.randint(1970, 2100)
    if random.random() < 0.3:
        # the ends of February and of the year
        month, day = random.choice(((2, 27), (2, 28), (3, 1), (12, 31), (1, 1)))
        date = datetime.date(year, month, day)
        return (date - datetime.date(1970, 1, 1)).days * DAY + random.randrange(DAY)
    return ((datetime.date(year, 1, 1) - datetime.date(1970, 1, 1)).days + random.randrange(365)) * DAY + random.randrange(DAY)


def random_instant_in(zone):
    end = PYTZ_ENDS
    changes = [start for start in zone.starts[1:] if 0 < start < end]
    if changes and random.random() < 0.6:
        return random.choice(changes) + random.choice((random.randint(-3 * DAY, DAY), random.randint(-7200, 7200)))
    return random.randrange(end)


def other_rule(schedule, reading, wanted):
    """The end of a line where the rules differ, the clock showing a time; None where they do not."""
    if "never" in schedule.classes:
        return "never", "", "", True
    if schedule.leaps and behind_february(reading, schedule.next(reading)):
        return "march", wanted, schedule.their_next(reading), True
    if schedule.classes:
        own = schedule.their_next(reading)
        return "+".join(schedule.classes), wanted, own, schedule.by_their_rules(reading, own)
    return None


def utc_pair(schedule):
    instant = random_instant()
    wanted = "never" in schedule.classes or schedule.next(instant)
    return schedule.text, instant, "UTC", *(
        other_rule(schedule, instant, wanted) or ("utc", wanted, schedule.their_next(instant), schedule.their_next(instant) == wanted)
    )


def zone_pair(schedule, names):
    name = random.choice(names)
    zone = Zone.named(name)
    instant = random_instant_in(zone)
    text, given = (f"CRON_TZ={name} {schedule.text}", "UTC") if random.random() < 0.1 else (schedule.text, name)
    offset = zone.offset(instant)
    wanted = "never" in schedule.classes or next_in_zone(schedule, zone, instant)
    other = other_rule(schedule, instant + offset, wanted)
    if other:
        return text, instant, given, *other

    # croniter reckons with the offset that holds where its search begins
    begin = instant + (1 if schedule.seconds else 60)
    straight = schedule.their_next(instant + zone.offset(begin)) - zone.offset(begin)
    start = datetime.datetime.fromtimestamp(instant, datetime.timezone.utc).astimezone(zone.pytz)
    own = int(schedule.their_croniter.get_next(datetime.datetime, start_time=start).timestamp())
    schedule.their_croniter.tzinfo = None
    if max(straight, wanted) >= PYTZ_ENDS:
        return text, instant, given, "late", wanted, own, True
    if offset % 60 != 0:
        return text, instant, given, "odd_offset", wanted, own, True
    if zone.span(straight) == zone.span(instant) and (schedule.every_hour or zone.latest_shown(instant) == instant + offset):
        return text, instant, given, "zone", wanted, own, own == wanted
    # and if the firing is on a later day, corrects by how much the offset is another
    return text, instant, given, "clock", wanted, own, own in (straight, straight - (zone.offset(straight) - offset))


def never_pair():
    """A date that never comes."""
    day, months = random.choice(((30, "2"), (31, "feb"), ("30-31", "2"), (31, "4,6"), (31, "4-11/5"), ("31/1", "9,NOV,2")))
    weekday = random.choice(("*", "?", "MON", "1-5"))
    return f"{random.randrange(60)} {random.randrange(24)} {day} {months} {weekday}", random_instant(), "UTC", "never", "", "", True


def refused_pair():
    """A form that we refuse, though croniter takes it."""
    day = random.randint(1, 6)
    text = random.choice(
        (f"0 0 * * {day}-0", "0 0 L * *", f"0 0 * * L{day}", f"0 0 * * {day}#{random.randint(1, 5)}")
    )
    instant = random_instant()
    return text, instant, "UTC", "refused", "", after(croniter(text, 0), instant), True


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    random.seed(seed)
    # to look at a zone takes longer than many pairs
    names = random.sample(ZONES, 12)
    if sys.argv[3:] == ["all"]:
        names = sorted(name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith("Etc/"))
    for number in range(count):
        if number % PER_SCHEDULE == 0:
            schedule = Schedule()
        chance = random.random()
        if chance < 0.005:
            pair = refused_pair()
        elif chance < 0.007:
            pair = never_pair()
        elif chance < 0.45:
            pair = utc_pair(schedule)
        else:
            pair = zone_pair(schedule, names)
        print(*("" if value is None else value for value in pair), sep="\t")


main()
