"""The controller: watches CharacterLoras and runs their trainings as Jobs. See reconcile.py for the one path that everything takes."""
