"""WHAT COMES OUT: a trial's model as plain TRL, peft and mergekit commands that make it again without this package."""
